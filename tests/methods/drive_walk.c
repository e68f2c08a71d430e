/* Drives the walks of one cell without XLA, under a sanitizer: `./program THREADS`.
 *
 * Every array has exactly its size, so that a read or write beyond one is found. The pool
 * starts a thread for each task; in a second pass every task starts 2 ms late, mostly when
 * the call has ended.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* The generated source of a cell comes before this text. */

static int64_t pool = 1;
static pthread_t started[4096];
static int count, late;

static void *run_task(void *given) {
  void **task = given;
  if (late) usleep(2000);
  ((XLA_FFI_Task *)task[0])(task[1]);
  free(task);
  return 0;
}

static XLA_FFI_Error *schedule(XLA_FFI_ThreadPool_Schedule_Args *args) {
  void **task = malloc(2 * sizeof *task);
  task[0] = (void *)args->task, task[1] = args->data;
  pthread_create(&started[count++], 0, run_task, task);
  return 0;
}

static XLA_FFI_Error *size_of_pool(XLA_FFI_ThreadPool_NumThreads_Args *args) {
  *args->num_threads = pool;
  return 0;
}

static XLA_FFI_Buffer *array(const int64_t a, const int64_t b, const int64_t c,
                             const long rank, const int flags) {
  XLA_FFI_Buffer *made = calloc(1, sizeof *made);
  made->dims = malloc(3 * sizeof(int64_t)), made->rank = rank;
  const int64_t dims[3] = {a, b, c};
  int64_t size = 1;
  for (long i = 0; i < rank; i++) made->dims[i] = dims[i], size *= dims[i];
  made->data = malloc((size_t)size * (flags ? sizeof(int32_t) : sizeof(real)));
  for (int64_t i = 0; i < size; i++)
    if (flags) ((int32_t *)made->data)[i] = rand() % 4;
    else ((real *)made->data)[i] = (real)(rand() % 1000) / 500 - 1;
  return made;
}

enum { MOST = 64 };
static void *args[MOST], *rets[MOST];
static int of_args, of_rets;
static XLA_FFI_ByteSpan names[MOST], *name_at[MOST];
static XLA_FFI_Scalar scalars[MOST];
static int64_t values[MOST];
static void *attributes[MOST];
static int of_attributes;

static void set(const char *name, const int64_t value) {
  const int i = of_attributes++;
  names[i] = (XLA_FFI_ByteSpan){name, strlen(name)}, name_at[i] = &names[i];
  values[i] = value;
  scalars[i] = (XLA_FFI_Scalar){XLA_FFI_DataType_S64, &values[i]};
  attributes[i] = &scalars[i];
}

static void give(XLA_FFI_Buffer *one) { args[of_args++] = one; }
static void take(XLA_FFI_Buffer *one) { rets[of_rets++] = one; }

static void call(XLA_FFI_Handler *handler) {
  static XLA_FFI_Api api;
  api.XLA_FFI_ThreadPool_Schedule = schedule;
  api.XLA_FFI_ThreadPool_NumThreads = size_of_pool;
  XLA_FFI_CallFrame frame;
  memset(&frame, 0, sizeof frame);
  frame.api = &api;
  frame.args.size = of_args, frame.args.args = args;
  frame.rets.size = of_rets, frame.rets.rets = rets;
  frame.attrs.size = of_attributes, frame.attrs.names = name_at;
  frame.attrs.attrs = attributes;
  if (handler(&frame)) abort();
  for (int i = 0; i < count; i++) pthread_join(started[i], 0);
  count = 0;
  for (int i = 0; i < of_rets + of_args; i++) {
    XLA_FFI_Buffer *one = i < of_rets ? rets[i] : args[i - of_rets];
    free(one->data), free(one->dims), free(one);
  }
  of_args = of_rets = of_attributes = 0;
}

static void drive(const int64_t T, const int64_t B, const int64_t K, const int64_t n,
                  const int inputs, const int flags, const int sums) {
  const int64_t width = JRNN_GATES * n;
  set("keep", (1 << JRNN_FIELDS) - 1), set("save", 1), set("bias", 1);
  set("inputs", inputs), set("input_bias", inputs), set("fresh", flags);
  set("flags", flags);
  give(inputs ? array(T, B, K, 3, 0) : array(T, B, width, 3, 0));
  if (inputs) give(array(K, width, 0, 2, 0)), give(array(width, 0, 0, 1, 0));
  give(array(n, width, 0, 2, 0)), give(array(width, 0, 0, 1, 0));
  for (int i = 0; i < JRNN_FIELDS * (1 + flags); i++) give(array(B, n, 0, 2, 0));
  if (flags) give(array(T, B, 0, 2, 1));
  for (int i = 0; i < JRNN_FIELDS; i++) take(array(B, n, 0, 2, 0));
  for (int i = 0; i < JRNN_FIELDS + JRNN_SAVED; i++) take(array(T, B, n, 3, 0));
  call(run_forward);

  set("bias", 1), set("inputs", inputs), set("input_bias", inputs);
  set("fresh", flags), set("flags", flags), set("dxs", inputs), set("sums", sums);
  set("direct", 1), set("dfinal", (1 << JRNN_FIELDS) - 1);
  give(array(n, width, 0, 2, 0));
  for (int i = 0; i < JRNN_FIELDS + JRNN_SAVED; i++) give(array(T, B, n, 3, 0));
  for (int i = 0; i < JRNN_FIELDS * (1 + flags); i++) give(array(B, n, 0, 2, 0));
  if (flags) give(array(T, B, 0, 2, 1));
  give(array(T, B, n, 3, 0));
  for (int i = 0; i < JRNN_FIELDS; i++) give(array(B, n, 0, 2, 0));
  if (inputs) give(array(T, B, K, 3, 0)), give(array(K, width, 0, 2, 0));
  if (sums) take(array(n, width, 0, 2, 0)), take(array(width, 0, 0, 1, 0));
  for (int i = 0; i < JRNN_FIELDS * (1 + flags); i++) take(array(B, n, 0, 2, 0));
  if (inputs) {
    take(array(K, width, 0, 2, 0)), take(array(width, 0, 0, 1, 0));
    take(array(T, B, K, 3, 0));
  } else
    take(array(T, B, width, 3, 0));
  if (!sums && !JRNN_SHARED) take(array(T, B, width, 3, 0));
  call(run_backward);
}

int main(int argc, char **argv) {
  const int64_t sizes[][4] = {{150, 1, 7, 70}, {0, 2, 3, 5}, {3, 0, 3, 5}, {1, 1, 1, 1}, {3, 2, 1, 5},   {7, 13, 3, 33},
                              {30, 1, 40, 17}, {130, 3, 2, 8}, {40, 20, 16, 24}};
  pool = argc > 1 ? atoi(argv[1]) : 1;
  for (late = 0; late < 2; late++)
    for (int i = 0; i < 9; i++)
      for (int kind = 0; kind < 8; kind++) {
        const int64_t *s = sizes[i];
        drive(s[0], s[1], s[2], s[3], kind & 1, kind >> 1 & 1, kind & 4 || kind & 1);
      }
  puts("walked");
  return 0;
}
