/* Work in independent items, shared with the threads of XLA's own pool.
 *
 * The caller takes items itself until none is left, and then waits only for items that
 * another thread has begun: a task that the pool never started, or starts late, delays
 * nobody and finds no item. So nothing hangs, however few threads are free.
 */
#ifndef JRNN_TASKS_H
#define JRNN_TASKS_H

#include <stdlib.h>

#if !defined(_WIN32)
#include <sched.h>
#endif

#include "xla/ffi/api/c_api.h"

typedef struct {
  void (*run)(void *data, long item);
  void *data; /* the caller's: read only by who holds an item */
  long items, next, done, owners;
} work;

/* Waits a moment: at first without giving up the core, later leaving it to others. */
static inline void wait_briefly(const long turn) {
#if !defined(_WIN32)
  if (turn > 1000) {
    sched_yield();
    return;
  }
#endif
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static void take_items(work *shared) {
  for (;;) {
    const long item = __atomic_fetch_add(&shared->next, 1, __ATOMIC_RELAXED);
    if (item >= shared->items) return;
    shared->run(shared->data, item);
    __atomic_fetch_add(&shared->done, 1, __ATOMIC_RELEASE);
  }
}

static void let_go(work *shared) {
  if (__atomic_sub_fetch(&shared->owners, 1, __ATOMIC_ACQ_REL) == 0) free(shared);
}

static void help(void *shared) {
  take_items(shared);
  let_go(shared);
}

/* Discards an error of XLA's; returns whether there was one. */
static int failed(const XLA_FFI_Api *api, XLA_FFI_Error *error) {
  if (!error) return 0;
  XLA_FFI_Error_Destroy_Args args = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, 0, error};
  api->XLA_FFI_Error_Destroy(&args);
  return 1;
}

/* The number of threads of the pool; 1 without a pool. */
static long threads(const XLA_FFI_CallFrame *frame) {
  int64_t count = 1;
  XLA_FFI_ThreadPool_NumThreads_Args args = {
      XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE, 0, frame->ctx, &count};
  if (failed(frame->api, frame->api->XLA_FFI_ThreadPool_NumThreads(&args))) return 1;
  return count < 1 ? 1 : (long)count;
}

/* Runs all items, and returns when all have ended. */
static void run_items(const XLA_FFI_CallFrame *frame, const long items,
                      void (*run)(void *, long), void *data) {
  work *shared = items > 1 ? malloc(sizeof *shared) : 0;
  if (!shared) {
    for (long item = 0; item < items; item++) run(data, item);
    return;
  }
  *shared = (work){run, data, items, 0, 0, 1};
  for (long helper = 1; helper < items; helper++) {
    XLA_FFI_ThreadPool_Schedule_Args args = {
        XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE, 0, frame->ctx, help, shared};
    __atomic_fetch_add(&shared->owners, 1, __ATOMIC_RELAXED);
    if (failed(frame->api, frame->api->XLA_FFI_ThreadPool_Schedule(&args))) {
      let_go(shared);
      break;
    }
  }
  take_items(shared);
  for (long turn = 0; __atomic_load_n(&shared->done, __ATOMIC_ACQUIRE) < items; turn++)
    wait_briefly(turn);
  let_go(shared);
}

#endif
