"""Many replicas on Ray Serve: each is one `Engine` behind the same HTTP app as `qvl serve`.

    qvl serve --ray --replicas 2 MODEL MODEL
    serve run qvl.ray_serve.app:build embedder=MODEL reranker=MODEL
    serve deploy ray_serve/deploy.yaml

Ray itself is imported by `deployment` and `app`, elsewhere inside functions; `config` and `policy` are plain.
"""
