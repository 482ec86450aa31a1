"""Two stages in one call: vectors recall from an index, the reranker orders. Needs the extra `search`.

    index = open_index("pictures.index")                 # a folder, or a Qdrant URL
    result = await Searcher(models, index).search(SearchRequest(query=Content(texts=("a red bicycle",))))

The index belongs to one embedder. `ingest` fills it; serving works without any of this.
"""
