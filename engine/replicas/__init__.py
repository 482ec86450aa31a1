"""Several replicas on one host, behind one port: `qvl serve --replicas N`."""
