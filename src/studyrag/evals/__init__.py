"""Measuring retrieval and answers: golden questions, metrics with intervals, a judge that is judged itself, baselines
and reports. Sits above the facade.

golden.py      questions with evidence from the notes
drafting.py    proposed questions for a person to check
measuring.py   per-question metrics, means with intervals, paired tests
judging.py     which chunks hold a quote, and when all of it was found
arms.py        named ways to rank, run on one query
results.py     the frozen records of an evaluation
retrieval.py   arms over questions
beir.py        a BEIR data set as notes in a temporary index

cache.py            what was answered or judged before, by content
judge.py            a chat model asked for yes or no, or for JSON
labelled.py         items whose truth is known, in two halves
probing.py          a linear probe of a judge's hidden state
calibrating.py      opinions to probabilities, and how good they are
judged.py           the judge on labelled items
samples.py          golden questions put to the Assistant
judgements.py       what the judge says of one answer
answer_metrics.py   metrics of one answer, of our own
ragas_metrics.py    RAGAS's metrics with our judge
answers.py          answers scored and summed up

baseline.py         numbers to hold, written and compared
tables.py           results as tables: Markdown and HTML
answer_tables.py    answers and the judge as tables
report.py           a report that opens offline, with plots
answer_plots.py     plots of answers and the judge
"""
