"""python -m index_server: run the index server."""

import sys

from index_server.app import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
