"""What runs inside a worker process: one file a library, served by ``serve.py`` as a script."""
