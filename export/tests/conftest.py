import os

# One thread: sums run in the same order every time, and the machine may be busy with other things.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
