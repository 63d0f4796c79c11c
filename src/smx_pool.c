/* One pool of threads for the process, made when it is first wanted.

   A call publishes its work and takes slices itself; threads of the pool join while there is any.
   Between calls they spin for some microseconds, in which a next call costs least, and then sleep.
   A call wakes two, and each that finds work left two more: a short call does not pay for many.
   Nobody depends on a thread before it has joined: one that does not start, or wakes too late, is
   only missed. A forked child has none of them: it forgets the pool and makes its own. */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "smx_pool.h"

#include <string.h>

#if defined(_WIN32)
#define SMX_THREADS 0
#else
#define SMX_THREADS 1
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>
#endif

#if SMX_THREADS

enum {
    STACK_BYTES = 1 << 20, /* the leaves' arrays take less than 96 KiB */
    SPIN_NS = 50 * 1000,   /* so long before they sleep: a wake-up takes about as long */
    CHECK_NS = 10 * 1000 * 1000
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wanted;   /* threads of the pool sleep here */
    pthread_cond_t changed;  /* and those in a call here */
    atomic_int busy;         /* a call has the pool */
    atomic_uint calls;       /* goes up with each call: what threads wait for */
    atomic_uint changes;     /* and with each merge, leaving and stop: what those in it wait for */
    unsigned forks;          /* how often this process is a child of itself */
    atomic_int size;
    int sleeping;
    atomic_int threads;      /* of the last call */
    /* The call, under the lock. */
    const smx_work *work;    /* NULL: there is none to join */
    void *job;
    int places;              /* for threads that may still join */
    int joined;              /* threads that did, and have not left */
    int waiting;             /* threads in the call that sleep */
    smx_idx taken, merged;
    int merging;
    int end;                 /* SMX_STOPPED: no slice is begun any more */
    unsigned char done[SMX_MOST_SLOTS]; /* by slot */
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER,
          .wanted = PTHREAD_COND_INITIALIZER,
          .changed = PTHREAD_COND_INITIALIZER};

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void forget(void)
{
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
    unsigned forks = pool.forks + 1;
    memset(&pool, 0, sizeof(pool));
    pool.lock = lock;
    pool.wanted = pool.changed = condition;
    pool.forks = forks;
}

static int processors; /* that this process may use; 0: there can be no pool */

static void prepare(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        n = CPU_COUNT(&set);
#endif
    if (pthread_atfork(NULL, NULL, forget) == 0)
        processors = n > 0 ? (int)n : 1;
}

/* Waits until *counter is no longer `seen`, for SPIN_NS at most; not where threads are more than
   processors: the one that is waited for might be waiting for this one's. */
static void spin(atomic_uint *counter, unsigned seen)
{
    int64_t end = now() + SPIN_NS;
    if (atomic_load_explicit(&pool.threads, memory_order_relaxed) > processors)
        return;
    do {
        for (int i = 0; i < 32; i++) {
            if (atomic_load_explicit(counter, memory_order_acquire) != seen)
                return;
            relax();
        }
    } while (now() < end);
}

static void tell_change(void)
{
    atomic_fetch_add_explicit(&pool.changes, 1, memory_order_release);
    if (pool.waiting)
        pthread_cond_broadcast(&pool.changed);
}

/* Under the lock, which is released meanwhile: until something changes, or 10 ms have passed. */
static void wait_for_change(void)
{
    unsigned seen = atomic_load_explicit(&pool.changes, memory_order_relaxed);
    struct timespec end;
    pthread_mutex_unlock(&pool.lock);
    spin(&pool.changes, seen);
    pthread_mutex_lock(&pool.lock);
    if (atomic_load_explicit(&pool.changes, memory_order_relaxed) != seen)
        return;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_nsec += CHECK_NS;
    if (end.tv_nsec >= 1000000000) {
        end.tv_sec++;
        end.tv_nsec -= 1000000000;
    }
    pool.waiting++;
    pthread_cond_timedwait(&pool.changed, &pool.lock, &end);
    pool.waiting--;
}

/* Under the lock: merges what is next in order, unless another thread is at it. */
static void merge_ready(const smx_work *work, void *job)
{
    if (pool.merging)
        return;
    while (pool.merged < pool.taken && !pool.end && pool.done[pool.merged % work->slots]) {
        smx_idx i = pool.merged;
        int stop = 0;
        if (work->merge) {
            pool.merging = 1;
            pthread_mutex_unlock(&pool.lock);
            stop = work->merge(job, i, i % work->slots);
            pthread_mutex_lock(&pool.lock);
            pool.merging = 0;
        }
        pool.done[i % work->slots] = 0;
        pool.merged++;
        if (stop)
            pool.end = SMX_STOPPED;
        tell_change();
    }
}

/* Under the lock: wakes two threads, if so many may join. */
static void wake(void)
{
    for (int i = 0; i < 2 && i < pool.sleeping && i < pool.places; i++)
        pthread_cond_signal(&pool.wanted);
}

/* Takes slices until there are none; begins and ends under the lock. Thread 0, the caller, asks
   `check` meanwhile, and says whether it is in a forked child now: there without the lock, for the
   pool is another one, with calls of its own. */
static int take_part(const smx_work *work, void *job, int worker)
{
    int64_t asked = worker ? 0 : now();
    unsigned forks = pool.forks;
    if (pool.taken < work->n)
        wake();
    while (!pool.end) {
        if (pool.taken < work->n && pool.taken - pool.merged < work->slots) {
            smx_idx i = pool.taken++;
            pthread_mutex_unlock(&pool.lock);
            work->slice(job, i, i % work->slots, worker);
            pthread_mutex_lock(&pool.lock);
            pool.done[i % work->slots] = 1;
            merge_ready(work, job);
        } else if (pool.taken == work->n && (worker || pool.merged == work->n)) {
            break; /* the caller alone stays to the end */
        } else {
            wait_for_change();
        }
        if (!worker && work->check && !pool.end && now() - asked > CHECK_NS) {
            int stop;
            pthread_mutex_unlock(&pool.lock);
            stop = work->check(job);
            if (pool.forks != forks)
                return 1;
            pthread_mutex_lock(&pool.lock);
            if (stop) {
                pool.end = SMX_STOPPED;
                tell_change();
            }
            asked = now();
        }
    }
    return 0;
}

static void *live(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        unsigned seen;
        int too_many = pool.work && pool.places == 0;
        if (pool.work && !too_many) {
            int worker = pool.places--;
            pool.joined++;
            take_part(pool.work, pool.job, worker);
            pool.joined--;
            tell_change();
        }
        seen = atomic_load_explicit(&pool.calls, memory_order_relaxed);
        if (!too_many) {
            pthread_mutex_unlock(&pool.lock);
            spin(&pool.calls, seen);
            pthread_mutex_lock(&pool.lock);
        }
        if (atomic_load_explicit(&pool.calls, memory_order_relaxed) == seen) {
            pool.sleeping++;
            pthread_cond_wait(&pool.wanted, &pool.lock);
            pool.sleeping--;
        }
    }
    return NULL;
}

/* Under the lock: so many threads, or as many as the system starts. They get no signals, which are
   Python's, and nobody waits for them when the process ends. */
static void grow(int size)
{
    pthread_attr_t how;
    sigset_t all, before;
    if (pool.size >= size || pthread_attr_init(&how))
        return;
    pthread_attr_setdetachstate(&how, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&how, STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool.size < size) {
        pthread_t thread;
        if (pthread_create(&thread, &how, live, NULL))
            break;
        pool.size++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&how);
}

static int run_shared(const smx_work *work, void *job)
{
    int end;
    pthread_mutex_lock(&pool.lock);
    grow(work->threads - 1);
    pool.work = work;
    pool.job = job;
    pool.places = work->threads - 1;
    atomic_store_explicit(&pool.threads, work->threads, memory_order_relaxed);
    pool.taken = pool.merged = 0;
    pool.merging = 0;
    pool.end = SMX_DONE;
    memset(pool.done, 0, sizeof(pool.done));
    atomic_fetch_add_explicit(&pool.calls, 1, memory_order_release);
    if (take_part(work, job, 0))
        return SMX_FORKED;
    pool.work = NULL;
    while (pool.joined)
        wait_for_change();
    end = pool.end;
    pthread_mutex_unlock(&pool.lock);
    atomic_store(&pool.busy, 0);
    return end;
}

int smx_pool_size(void)
{
    return pool.size;
}

#else

int smx_pool_size(void)
{
    return 0;
}

#endif /* SMX_THREADS */

static int run_alone(const smx_work *work, void *job)
{
#if SMX_THREADS
    int64_t asked = now();
#endif
    for (smx_idx i = 0; i < work->n; i++) {
        work->slice(job, i, 0, 0);
        if (work->merge && work->merge(job, i, 0))
            return SMX_STOPPED;
#if SMX_THREADS
        if (work->check && now() - asked > CHECK_NS) {
            if (work->check(job))
                return SMX_STOPPED;
            asked = now();
        }
#endif
    }
    return SMX_DONE;
}

int smx_run(const smx_work *work, void *job)
{
#if SMX_THREADS
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (work->threads > 1) {
        pthread_once(&once, prepare);
        if (processors && !atomic_exchange(&pool.busy, 1))
            return run_shared(work, job);
    }
#endif
    return run_alone(work, job);
}
