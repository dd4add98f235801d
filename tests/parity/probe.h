/* The probe: a static program that prints what it sees and what it may do, one fact a line:
 *     fact ROW KEY =VALUE
 * Bytes that are no visible ASCII, and backslashes, are \xHH, so that a line holds any value.
 */
#ifndef PROBE_H
#define PROBE_H

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void fact(const char *row, const char *key, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* What became of an attempt: "done", or the error's name. `result` < 0 means: see errno. */
const char *outcome(long result);

void attempt_system_calls(void);
void attempt_escapes(void);
void look_at_files(void);
void look_at_network(void);
int serve(int port);
int wait_for_signals(int ignore);

#endif
