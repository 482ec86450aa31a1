"""Talk to a qvl server: numpy arrays out, texts, pictures, files and videos in.

    from qvl.engine.client import Client

    with Client("http://127.0.0.1:8080") as client:
        vectors = client.embed(["a red square", Path("cat.jpg"), {"text": "a cat", "image": image}])
        for ranked in client.rerank("which one is red?", ["a red square", image], top_n=1):
            print(ranked.index, ranked.score)

`AsyncClient` has the same methods as coroutines and sends the parts of a long list side by side.
Importing this loads no torch, vLLM, Ray or transformers.
"""

from qvl.engine.client.calls import Found, Ranked
from qvl.engine.client.clients import AsyncClient, Client
from qvl.engine.client.retry import Policy

__all__ = ["AsyncClient", "Client", "Found", "Policy", "Ranked"]
