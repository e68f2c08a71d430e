/* How a walk is divided among the threads of a pool, and run by them. */
#ifndef JRNN_DIVISION_H
#define JRNN_DIVISION_H

/* What a core of our time does in a nanosecond, roughly: numbers that choose a division,
 * and no more. */
static const double PRODUCTS = 45 * LANES / 8.0; /* multiply-adds */
static const double NEAR = 90, FAR = 40;         /* bytes of its own, a shared cache */
static const double OTHERS = 2;                  /* bytes that another core wrote */
static const double OWN = 512 * 1024;            /* bytes of its own cache */
#ifndef JRNN_BARRIER     /* tests divide whatever the cost */
#define JRNN_BARRIER 500 /* nanoseconds */
#define JRNN_ALONE 1e5   /* products that take microseconds, as a thread's start does */
#endif

/* The time of a step by a core with so many rows and bytes of W. */
static double step_time(const double products, const double bytes) {
  const double read = bytes / (bytes > OWN ? FAR : NEAR), count = products / PRODUCTS;
  return count > read ? count : read;
}

/* Chooses groups of rows, and parts of the units of each. `exchanged` numbers of each row
 * and step are written by all parts and read by all. */
static void divide(const XLA_FFI_CallFrame *frame, walk *w, const long exchanged) {
  const double matrix = (double)w->units * (double)(GATES * w->units);
  const double products = (double)w->steps * (double)w->rows * (double)w->units *
                          (double)(GATES * (w->units + w->inputs));
  w->groups = w->parts = w->items = 1;
  if (products < JRNN_ALONE) return;
  const long count = threads(frame);
  double best = 0;
  for (long groups = least(count, w->rows); groups > 0; groups--)
    for (long parts = 1; parts <= least(count / groups, panels_of(w->vectors)); parts++) {
      const double rows = (double)((w->rows + groups - 1) / groups);
      const double read = rows * (double)(exchanged * (parts - 1) / parts) * sizeof(real);
      const double time = step_time(rows * matrix / (double)parts,
                                    matrix * sizeof(real) / (double)parts) +
                          (parts > 1 ? JRNN_BARRIER + read / OTHERS : 0);
      if (best == 0 || time < best) best = time, w->groups = groups, w->parts = parts;
    }
  w->items = w->groups * w->parts;
}

typedef struct {
  team of;
  long groups, *counters;
} seats;

/* Seats go round the groups: the first threads to come give each group a member. */
static void take_seat(void *data, const long seat) {
  const seats *all = data;
  const long group = seat % all->groups;
  follow(&all->of, all->counters + group * counters_of(all->of.parts), group,
         seat / all->groups);
}

/* Runs all stages of all parts of all groups; returns 0 if there is no memory. */
static int run_stages(const XLA_FFI_CallFrame *frame, const walk *w, const long stages,
                      void (*run)(void *, long, long, long), void *data) {
  const size_t count = (size_t)(w->groups * counters_of(w->parts));
  seats all = {{run, data, w->parts, stages}, w->groups, calloc(count, sizeof(long))};
  if (!all.counters) return 0;
  run_items(frame, w->items, take_seat, &all);
  free(all.counters);
  return 1;
}

#endif
