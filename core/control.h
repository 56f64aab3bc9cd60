/*
 * control.h - safeguards that a test build can take away
 *
 * Each promise that could silently be empty names its safeguard: `RF_SAFEGUARD("log-fdatasync")`.
 * In every ordinary build the macro is the constant true. Built with RF_CONTROLS, the environment
 * variable REFUGE_WITHOUT (names separated by commas) removes safeguards, and the test that holds
 * the promise must then fail. The list of names is in tests/README.md.
 */
#ifndef RF_CORE_CONTROL_H
#define RF_CORE_CONTROL_H

#include <stdbool.h>

#ifdef RF_CONTROLS
bool rf_control_kept(const char *name); /* any thread; reads the environment at each call */
#define RF_SAFEGUARD(name) rf_control_kept(name)
#else
#define RF_SAFEGUARD(name) true
#endif

#endif
