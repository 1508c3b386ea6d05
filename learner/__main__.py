"""`python -m learner`."""

import sys

from learner.app import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
