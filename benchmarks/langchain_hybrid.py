"""The same hybrid built with LangChain, as its documentation builds it: run in benchmarks/.venv, not imported.

BM25Retriever and a FAISS vector store with HuggingFaceEmbeddings under an EnsembleRetriever of equal weights, over the
same chunk texts, the same MiniLM folder and as many candidates an arm. BM25Retriever has no saved form, so it is made
from the saved documents, as every program must that uses it.

    python langchain_hybrid.py build CHUNKS.json MODEL_FOLDER STORE
    python langchain_hybrid.py search STORE MODEL_FOLDER QUESTION
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

from langchain_classic.retrievers import EnsembleRetriever
from langchain_community.retrievers import BM25Retriever
from langchain_community.vectorstores import FAISS
from langchain_core.documents import Document
from langchain_huggingface import HuggingFaceEmbeddings

CANDIDATES = 50
SHOWN = 5
PACKAGES = ("langchain-classic", "langchain-community", "langchain-core", "langchain-huggingface",
            "sentence-transformers", "torch", "faiss-cpu", "rank-bm25")  # fmt: skip


def build(chunks: Path, model: Path, store: Path) -> None:
    """Saves the vector store and the documents; prints the versions."""
    documents = json.loads(chunks.read_text(encoding="utf-8"))
    ids = [document["id"] for document in documents]
    texts = [document["text"] for document in documents]
    vectors = FAISS.from_texts(texts, _embeddings(model), metadatas=[{"id": one} for one in ids], ids=ids)
    vectors.save_local(str(store))
    (store / "documents.json").write_text(json.dumps(documents), encoding="utf-8")
    print(json.dumps({name: version(name) for name in PACKAGES}))


def search(store: Path, model: Path, question: str) -> None:
    """Loads both arms, answers one question, prints the ids of the best chunks."""
    saved = json.loads((store / "documents.json").read_text(encoding="utf-8"))
    documents = [Document(page_content=one["text"], metadata={"id": one["id"]}) for one in saved]
    lexical = BM25Retriever.from_documents(documents, k=CANDIDATES)
    vectors = FAISS.load_local(str(store), _embeddings(model), allow_dangerous_deserialization=True)
    dense = vectors.as_retriever(search_kwargs={"k": CANDIDATES})
    hybrid = EnsembleRetriever(retrievers=[lexical, dense], weights=[0.5, 0.5], id_key="id")
    for document in hybrid.invoke(question)[:SHOWN]:
        print(document.metadata["id"])


def _embeddings(model: Path) -> HuggingFaceEmbeddings:
    return HuggingFaceEmbeddings(
        model_name=str(model), model_kwargs={"device": "cpu"}, encode_kwargs={"normalize_embeddings": True}
    )


if __name__ == "__main__":
    if sys.argv[1] == "build":
        build(Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        search(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
