/* The arguments, results and attributes of a call of XLA's foreign function interface,
 * by its C header: what a C++ library would add takes most compilers seconds.
 */
#ifndef JRNN_CALL_H
#define JRNN_CALL_H

#include <stdint.h>
#include <string.h>

#include "pages.h"
#include "vectors.h"
#include "xla/ffi/api/c_api.h"

/* A function that XLA calls: visible outside of the library. */
#define JRNN_HANDLER __attribute__((visibility("default"))) XLA_FFI_Error *

/* Answers XLA's question which version of the interface this was compiled for. */
static int answered(const XLA_FFI_CallFrame *frame) {
  XLA_FFI_Metadata_Extension *asked = (void *)frame->extension_start;
  if (!asked || asked->extension_base.type != XLA_FFI_Extension_Metadata) return 0;
  asked->metadata->api_version.major_version = XLA_FFI_API_MAJOR;
  asked->metadata->api_version.minor_version = XLA_FFI_API_MINOR;
  asked->metadata->traits = 0;
  return 1;
}

static XLA_FFI_Error *error(const XLA_FFI_CallFrame *frame, const XLA_FFI_Error_Code code,
                            const char *message) {
  XLA_FFI_Error_Create_Args args = {XLA_FFI_Error_Create_Args_STRUCT_SIZE, 0, message,
                                    code};
  return frame->api->XLA_FFI_Error_Create(&args);
}

/* The next argument, or the next result, of a call. */
typedef struct {
  void **at, **end;
} buffers;

static const XLA_FFI_Buffer *next(buffers *left) {
  return left->at < left->end ? (const XLA_FFI_Buffer *)*left->at++ : 0;
}

/* The numbers of the next buffer; 0 if it is absent by `present`, or missing. */
static real *next_if(buffers *left, const long present) {
  const XLA_FFI_Buffer *buffer = present ? next(left) : 0;
  return buffer ? (real *)buffer->data : 0;
}

/* The results of a call are written whole, and are often new to the process. */
static void prepare_results(const XLA_FFI_CallFrame *frame) {
  for (int64_t i = 0; i < frame->rets.size; i++) {
    const XLA_FFI_Buffer *result = frame->rets.rets[i];
    size_t bytes = sizeof(real);
    for (int64_t axis = 0; axis < result->rank; axis++) bytes *= (size_t)result->dims[axis];
    prefer_large_pages(result->data, bytes);
  }
}

/* An attribute that is an integer of 64 bits; 0 if there is none of this name. */
static long attribute(const XLA_FFI_CallFrame *frame, const char *name) {
  for (int64_t i = 0; i < frame->attrs.size; i++) {
    const XLA_FFI_ByteSpan *found = frame->attrs.names[i];
    if (found->len == strlen(name) && !memcmp(found->ptr, name, found->len))
      return (long)*(const int64_t *)((const XLA_FFI_Scalar *)frame->attrs.attrs[i])
          ->value;
  }
  return 0;
}

#endif
