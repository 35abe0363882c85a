package main

// The Go runtime has a thread that looks after the others. Whenever the process has been idle for a moment it wakes and
// sleeps for 20 us fifty times, which under load is a twentieth of all CPU. The kernel may put such sleeps together if
// the thread allows it, and threads inherit that from the first one: so it is said before the runtime starts.

/*
#include <sys/prctl.h>

__attribute__((constructor)) static void pgmosaic_timer_slack(void) { prctl(PR_SET_TIMERSLACK, 1000000UL, 0, 0, 0); }
*/
import "C"
