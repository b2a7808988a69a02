"""Ask for huge pages for the C library's allocator, where a CPU computes.

Every step asks for a gigabyte of scratch memory and gives it back. In pages of 4 KiB the kernel spends a quarter of a
step on handing them out: 0.81 s instead of 0.58 s a step of 512 codes on 2 cores. The allocator reads its settings
once, as a process starts.
"""

import os
import sys

VARIABLE = "GLIBC_TUNABLES"
SETTING = "glibc.malloc.hugetlb=1"


def restart_with_huge_pages() -> None:
    """Start this process anew with huge pages, unless that is set, impossible, or the user has set the variable."""
    if sys.platform != "linux" or VARIABLE in os.environ or os.environ.get("JAX_PLATFORMS", "cpu") != "cpu":
        return
    os.environ[VARIABLE] = SETTING
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # nosec B606 # The command line of this process.
