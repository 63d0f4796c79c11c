/* The pool of threads: work in slices, taken in order, their results put together in order. */
#ifndef SMX_POOL_H
#define SMX_POOL_H

#include "smx.h"

#define SMX_MOST_THREADS 1024
#define SMX_MOST_SLOTS (2 * SMX_MOST_THREADS)

/* What a call wants done. The functions run on any thread of the pool, without Python, but `check`,
   which the calling thread alone calls. */
typedef struct {
    smx_idx n;       /* slices */
    int threads;     /* that may take part, the calling one among them: 1 to SMX_MOST_THREADS, and no
                        more than slices or slots, which others would wait for */
    smx_idx slots;   /* results that may wait to be merged: 1 to SMX_MOST_SLOTS */
    /* Slice i, by thread `worker` (0 to threads - 1, no two at a time the same), its result to a
       slot that nobody else has. */
    void (*slice)(void *job, smx_idx i, smx_idx slot, int worker);
    /* Adds the result of slice i, which is in `slot`, to the whole: for i = 0, 1, 2 and so on, one
       at a time. Anything but 0 stops the call. NULL: there is nothing to merge. */
    int (*merge)(void *job, smx_idx i, smx_idx slot);
    /* Called every 10 ms or so, and must return: anything but 0 stops the call. NULL: never. */
    int (*check)(void *job);
} smx_work;

enum smx_end { SMX_DONE = 0, SMX_STOPPED = 1, SMX_FORKED = 2 };

/* Does the work and says how it ended. All slices are done and merged (SMX_DONE); or `merge` or
   `check` stopped it, and no thread is in a slice any more (SMX_STOPPED); or this is a child forked
   by `check`, which lacks the other threads and their slices (SMX_FORKED).

   The same bits on any number of threads, as long as `slice` and `merge` look at i only. A call that
   finds the pool busy, or that no thread can be started for, does its work alone. */
int smx_run(const smx_work *work, void *job);

/* How many threads the pool has at this moment. */
int smx_pool_size(void);

#endif
