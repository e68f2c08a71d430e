/* A walk in parts, stage by stage, with a barrier between two stages.
 *
 * A part of a stage reads what all parts of earlier stages wrote. A member takes the part
 * of its own number first, whose matrix lies in its core's cache, and then any part that
 * nobody has begun. It waits only for parts that another member has begun: a task that
 * never starts delays nobody, one that starts late joins in, and a single member takes
 * every part. What a part computes does not depend on who takes it.
 */
#ifndef JRNN_TEAM_H
#define JRNN_TEAM_H

#include "tasks.h"

/* Counters of one team, a cache line or more apart: of parts that have ended, and for
 * each part of the stages that were begun. All are zero at first. */
enum { APART = 128 / (int)sizeof(long) };

static inline long counters_of(const long parts) { return (1 + parts) * APART; }

typedef struct {
  void (*run)(void *data, long group, long part, long stage);
  void *data;
  long parts, stages;
} team;

/* Takes parts of all stages that are left, as the member of this number. */
static void follow(const team *of, long *counters, const long group, const long member) {
  long *ended = counters, *begun = counters + APART;
  long stage = __atomic_load_n(ended, __ATOMIC_ACQUIRE) / of->parts;
  for (; stage < of->stages; stage++) {
    for (long i = 0; i < of->parts; i++) {
      const long part = (member + i) % of->parts;
      long *mine = begun + part * APART, expected = stage;
      if (__atomic_load_n(mine, __ATOMIC_RELAXED) != stage ||
          !__atomic_compare_exchange_n(mine, &expected, stage + 1, 0, __ATOMIC_RELAXED,
                                       __ATOMIC_RELAXED))
        continue;
      of->run(of->data, group, part, stage);
      __atomic_fetch_add(ended, 1, __ATOMIC_ACQ_REL);
    }
    const long all = (stage + 1) * of->parts;
    for (long turn = 0; __atomic_load_n(ended, __ATOMIC_ACQUIRE) < all; turn++)
      wait_briefly(turn);
  }
}

#endif
