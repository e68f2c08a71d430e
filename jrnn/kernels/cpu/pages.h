/* Large pages for large arrays. Memory that is new to a process is cleared page by page
 * when it is first written; in pages of 4 KiB that takes a good part of a call that
 * writes hundreds of mebibytes. */
#ifndef JRNN_PAGES_H
#define JRNN_PAGES_H

#include <stddef.h>
#include <stdint.h>

#if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__))
/* Of sys/mman.h, which hides both where only standard C is asked for. */
extern int madvise(void *from, size_t bytes, int advice);
enum { ADVICE_LARGE_PAGES = 14 };

/* Asks for large pages, which is no more than advice: no number depends on it. */
static void prefer_large_pages(void *from, const size_t bytes) {
  const uintptr_t large = (uintptr_t)1 << 21;
  const uintptr_t first = ((uintptr_t)from + large - 1) & ~(large - 1);
  const uintptr_t end = ((uintptr_t)from + bytes) & ~(large - 1);
  if (from && end > first) (void)madvise((void *)first, end - first, ADVICE_LARGE_PAGES);
}
#else
static void prefer_large_pages(void *from, const size_t bytes) {
  (void)from, (void)bytes;
}
#endif

#endif
