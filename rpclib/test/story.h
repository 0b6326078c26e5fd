/* story: what happened, told by callbacks in the order in which it happened, for a test to compare with what should have. */
#ifndef RPCLIB_TEST_STORY_H
#define RPCLIB_TEST_STORY_H

#define STORY_SIZE 16384

/* Add to the story, behind "; "; what has no room is cut off. */
__attribute__((format(printf, 2, 3))) void story_tell(char story[STORY_SIZE], const char *format, ...);

/* Fail the test unless the whole story is as expected, naming `line` and `what` the story tells of; then begin a new one. */
void story_compare(char story[STORY_SIZE], const char *expected, const char *what, int line);

#endif
