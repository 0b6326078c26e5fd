/*
 * fault_text: what an errno means, for people.  Unlike strerror() it takes no lock of the C library's locale and does not
 * translate, so it is fit for a sandbox and for any thread.
 */
#ifndef RPCLIB_SRC_FAULT_TEXT_H
#define RPCLIB_SRC_FAULT_TEXT_H

#include <string.h>

static inline const char *fault_text(int error)
{
    const char *text = strerrordesc_np(error);

    return text != NULL ? text : "unknown error";
}

#endif
