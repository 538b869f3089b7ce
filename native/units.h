/* units: lengths of time in ns, the unit of every *_ns quantity. */
#ifndef UNITS_H
#define UNITS_H
#include <stdint.h>

#define NS_PER_S INT64_C(1000000000)
#define NS_PER_MS INT64_C(1000000)
#endif
