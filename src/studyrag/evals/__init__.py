"""Measuring retrieval: golden questions, arms, metrics with intervals, baselines and reports. Sits above the facade.

golden.py      questions with evidence from the notes
drafting.py    proposed questions for a person to check
measuring.py   per-question metrics, means with intervals, paired tests
judging.py     which chunks hold a quote, and when all of it was found
arms.py        named ways to rank, run on one query
results.py     the frozen records of an evaluation
retrieval.py   arms over questions
beir.py        a BEIR data set as notes in a temporary index
baseline.py    numbers to hold, written and compared
tables.py      results as tables: Markdown and HTML
report.py      a report that opens offline, with plots
"""
