/* run.h - the whole program but for main(): so that tests can call it. */
#ifndef CLI_RUN_H
#define CLI_RUN_H

int cli_run(int argc, char **argv); /* argv as main's; returns the exit code */

#endif
