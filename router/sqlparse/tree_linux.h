#include <stddef.h>

// A job is one call into PostgreSQL's parser: text to tree, or with back set, tree to text.
typedef struct {
	int back;
	size_t depth;  // bytes of stack that a walk over the tree may need
	int own_stack; // run on the thread's own stack, as where there is no other
	int slow;      // leave the writing of trees to the library

	char *out; // malloc-ed: a tree, or text with a zero behind it; NULL where it failed
	size_t out_len;
	char *message; // malloc-ed: why; NULL where it is one of these
	int cursor;    // where in the text, in characters from 1
	int too_deep;
	int no_memory;
} tree_job;

// tree_run does a job. in is a text with a zero behind it, or a tree, of len bytes.
void tree_run(tree_job *job, const char *in, size_t len);

// tree_used runs a job and says how much of its stack was touched.
size_t tree_used(tree_job *job, const char *in, size_t len);
