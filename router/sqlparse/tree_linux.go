package sqlparse

/*
#cgo LDFLAGS: -Wl,--wrap=check_stack_depth -Wl,--wrap=pg_query__parse_result__get_packed_size -Wl,--wrap=pg_query__parse_result__pack
#include <stdlib.h>
#include "tree_linux.h"
*/
import "C"

import "unsafe"

// maxDepth bounds how deep a tree may be: the stack that a copy of it needs in C, 32 bytes for an operator and 144 for a
// subquery. PostgreSQL gives up earlier with its own default of max_stack_depth, whatever the construct.
const maxDepth = 1 << 20

// For tests: how deep a tree may be; where to note how much of the large stack is used at most; 1 for threads' own stacks; 1 for trees as the
// library writes them.
var (
	depth             = maxDepth
	stackUsed         *int
	ownStack, slowest int
)

// treeOf gives a text's tree, as bytes, to read, which must keep nothing of them.
func treeOf(sql string, read func(tree []byte) error) error {
	text := append([]byte(sql), 0)
	if err := scannable(text[:len(sql)]); err != nil {
		return err
	}
	return asItIs(text[:len(sql)], read)
}

// asItIs is treeOf for a text in which nothing is changed.
func asItIs(text []byte, read func(tree []byte) error) error {
	var job C.tree_job
	return run(&job, append(text, 0), len(text), read)
}

// textOf writes a tree as SQL.
func textOf(tree []byte) (string, error) {
	text := ""
	job := C.tree_job{back: 1}
	err := run(&job, tree, len(tree), func(out []byte) error {
		text = string(out)
		return nil
	})
	return text, err
}

// run does a job and gives what it made to read, then frees it.
func run(job *C.tree_job, in []byte, n int, read func(out []byte) error) error {
	job.depth = C.size_t(depth)
	at := (*C.char)(unsafe.Pointer(unsafe.SliceData(in)))
	if stackUsed != nil {
		*stackUsed = max(*stackUsed, int(C.tree_used(job, at, C.size_t(n))))
	} else {
		job.own_stack, job.slow = C.int(ownStack), C.int(slowest)
		C.tree_run(job, at, C.size_t(n))
	}
	defer C.free(unsafe.Pointer(job.out))
	defer C.free(unsafe.Pointer(job.message))
	switch {
	case job.too_deep != 0:
		return &TooDeepError{}
	case job.no_memory != 0:
		return &TooLargeError{}
	case job.message != nil:
		return &SyntaxError{C.GoString(job.message), int(job.cursor)}
	}
	return read(unsafe.Slice((*byte)(unsafe.Pointer(job.out)), int(job.out_len)))
}
