// The parser's C code as pgmosaic calls it: on a stack that is large enough for the deepest tree that is let through,
// and with the depth of a tree found out before anything walks it without a bound.
//
// The grammar keeps its own stack, but what turns its tree into bytes, and back, recurses and does not look how deep it
// is. PostgreSQL's copyObject does: it asks check_stack_depth at each node, of whatever kind. So a tree is copied first,
// and the linker gives that question to this file (--wrap). Every recursion over a tree needs a stack that is in
// proportion to that of the copy: TestStacksAreLargeEnough measures the worst.

#define _GNU_SOURCE
#include "tree_linux.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <sys/mman.h>
#include <ucontext.h>

// What the library keeps to itself. The references are weak because the library is another package: they are resolved
// when the program is linked.
typedef struct {
	char *message, *funcname, *filename;
	int lineno, cursorpos;
	char *context;
} pg_error;
typedef struct {
	void *tree;
	char *stderr_buffer;
	pg_error *error;
} pg_raw;
typedef struct {
	size_t len;
	char *data;
} pg_bytes;
typedef struct {
	char *query;
	pg_error *error;
} pg_text;

#define LIBRARY extern __attribute__((weak))
LIBRARY void *pg_query_enter_memory_context(void);
LIBRARY void pg_query_exit_memory_context(void *);
LIBRARY pg_raw pg_query_raw_parse(const char *, int);
LIBRARY pg_bytes pg_query_nodes_to_protobuf(const void *);
LIBRARY pg_text pg_query_deparse_protobuf(pg_bytes);
LIBRARY void pg_query_free_error(pg_error *);
LIBRARY void *copyObjectImpl(const void *);
LIBRARY void FlushErrorState(void);
LIBRARY __thread sigjmp_buf *PG_exception_stack;

#pragma weak makecontext // musl has none

// --- how deep a tree is

static __thread struct {
	char *base; // NULL: nobody asks
	size_t limit;
	sigjmp_buf out;
} depth;

void __wrap_check_stack_depth(void)
{
	char here;
	if (depth.base != NULL && (size_t)(depth.base - &here) > depth.limit)
		siglongjmp(depth.out, 1);
}

static int __attribute__((noinline)) too_deep(const void *tree, size_t limit)
{
	char here;
	int deep = 1;
	depth.limit = limit;
	if (sigsetjmp(depth.out, 0) == 0) {
		depth.base = &here;
		copyObjectImpl(tree);
		deep = 0;
	}
	depth.base = NULL;
	return deep;
}

// --- trees as bytes
//
// The library asks protobuf-c, which looks at each of the 270 fields that a node could have, twice, and moves what it has
// written at each level. Written from the end to the front, and by the field that a node has, the same bytes cost a
// tenth. The declarations are those of protobuf-c.h; TestTreesAreTheLibrarys compares the bytes.

typedef struct field {
	const char *name;
	uint32_t id;
	int label, type;
	unsigned quantifier_offset, offset;
	const void *descriptor, *default_value;
	uint32_t flags;
	unsigned reserved_flags;
	void *reserved2, *reserved3;
} field;

typedef struct {
	uint32_t magic;
	const char *name, *short_name, *c_name, *package_name;
	size_t sizeof_message;
	unsigned n_fields;
	const field *fields;
} descriptor;

typedef struct {
	const descriptor *descriptor;
} message;

enum { LABEL_REPEATED = 2, FLAG_ONEOF = 4 };
enum { TYPE_INT32 = 0, TYPE_INT64 = 3, TYPE_UINT32 = 6, TYPE_UINT64 = 8, TYPE_DOUBLE = 11, TYPE_BOOL = 12, TYPE_ENUM = 13, TYPE_STRING = 14, TYPE_MESSAGE = 16 };

static __thread struct {
	uint8_t *buf;
	size_t cap, at; // what is written stands at buf[at..cap]
	int failed;
	const void *of; // the message that it is
} pack;

static __thread int slow;
extern __attribute__((weak)) size_t __real_pg_query__parse_result__get_packed_size(const message *);
extern __attribute__((weak)) size_t __real_pg_query__parse_result__pack(const message *, uint8_t *);

static int __attribute__((noinline)) more_room(size_t n)
{
	size_t used = pack.cap - pack.at, cap = pack.cap ? pack.cap : 4096;
	while (cap - used < n)
		cap *= 2;
	uint8_t *b = malloc(cap);
	if (b == NULL) {
		pack.failed = 1;
		return 0;
	}
	if (used > 0)
		memcpy(b + cap - used, pack.buf + pack.at, used);
	free(pack.buf);
	pack.buf = b;
	pack.at = cap - used;
	pack.cap = cap;
	return 1;
}

static inline int room(size_t n) { return !pack.failed && (pack.at >= n || more_room(n)); }

static void put_varint(uint64_t v)
{
	uint8_t b[10];
	if (v < 0x80) { // nearly all are
		if (room(1))
			pack.buf[--pack.at] = v;
		return;
	}
	size_t n = 0;
	do {
		b[n++] = (v & 0x7f) | 0x80;
		v >>= 7;
	} while (v);
	b[n - 1] &= 0x7f;
	if (room(n)) {
		pack.at -= n;
		memcpy(pack.buf + pack.at, b, n);
	}
}

static void put_bytes(const void *p, size_t n)
{
	if (room(n)) {
		pack.at -= n;
		memcpy(pack.buf + pack.at, p, n);
	}
}

static void put_message(const message *m);

// put_value writes a field that is there: its tag goes in front of it.
static void put_value(const field *f, const char *at)
{
	unsigned wire = 0;
	switch (f->type) {
	case TYPE_INT32:
	case TYPE_ENUM:
		put_varint((uint64_t)(int64_t) * (const int32_t *)at);
		break;
	case TYPE_UINT32:
		put_varint(*(const uint32_t *)at);
		break;
	case TYPE_BOOL:
		put_varint(*(const int *)at != 0);
		break;
	case TYPE_INT64:
	case TYPE_UINT64:
		put_varint(*(const uint64_t *)at);
		break;
	case TYPE_DOUBLE:
		wire = 1;
		put_bytes(at, 8);
		break;
	case TYPE_STRING: {
		const char *s = *(char *const *)at;
		size_t n = s ? strlen(s) : 0;
		wire = 2;
		put_bytes(s, n);
		put_varint(n);
		break;
	}
	case TYPE_MESSAGE: {
		size_t end = pack.cap - pack.at;
		const message *m = *(message *const *)at;
		wire = 2;
		if (m != NULL)
			put_message(m);
		put_varint(pack.cap - pack.at - end);
		break;
	}
	default:
		pack.failed = 1; // a kind that the library's trees do not have
	}
	put_varint((uint64_t)f->id << 3 | wire);
}

// is_zero says whether a plain field is left out.
static int is_zero(const field *f, const char *at)
{
	switch (f->type) {
	case TYPE_INT64:
	case TYPE_UINT64:
		return *(const uint64_t *)at == 0;
	case TYPE_DOUBLE:
		return *(const double *)at == 0;
	case TYPE_STRING:
		return *(char *const *)at == NULL || **(char *const *)at == 0;
	case TYPE_MESSAGE:
		return *(void *const *)at == NULL;
	}
	return *(const uint32_t *)at == 0;
}

static void put_field(const message *m, const field *f)
{
	const char *at = (const char *)m + f->offset, *quantifier = (const char *)m + f->quantifier_offset;
	if (f->flags & FLAG_ONEOF) {
		if (*(const uint32_t *)quantifier != f->id)
			return;
		if ((f->type == TYPE_MESSAGE || f->type == TYPE_STRING) && (*(void *const *)at == NULL || *(void *const *)at == f->default_value))
			return;
		put_value(f, at);
	} else if (f->label == LABEL_REPEATED) {
		size_t n = *(const size_t *)quantifier;
		if (n > 0 && f->type != TYPE_MESSAGE) {
			pack.failed = 1;
			return;
		}
		while (n-- > 0)
			put_value(f, *(char *const *)at + n * sizeof(void *));
	} else if (!is_zero(f, at)) {
		put_value(f, at);
	}
}

static void put_message(const message *m)
{
	const field *fs = m->descriptor->fields;
	unsigned n = m->descriptor->n_fields;
	if (n > 16 && (fs[0].flags & fs[n - 1].flags & FLAG_ONEOF)) { // a node is one of many
		uint32_t is = *(const uint32_t *)((const char *)m + fs[0].quantifier_offset);
		if (is >= 1 && is <= n && fs[is - 1].id == is)
			put_field(m, &fs[is - 1]);
		else if (is != 0)
			pack.failed = 1;
		return;
	}
	while (n-- > 0)
		put_field(m, &fs[n]);
}

size_t __wrap_pg_query__parse_result__get_packed_size(const message *m)
{
	if (slow)
		return __real_pg_query__parse_result__get_packed_size(m);
	free(pack.buf);
	memset(&pack, 0, sizeof pack);
	put_message(m);
	pack.of = m;
	return pack.failed ? 0 : pack.cap - pack.at;
}

size_t __wrap_pg_query__parse_result__pack(const message *m, uint8_t *out)
{
	size_t n = 0;
	if (slow)
		return __real_pg_query__parse_result__pack(m, out);
	if (pack.of == m && !pack.failed) {
		n = pack.cap - pack.at;
		memcpy(out, pack.buf + pack.at, n);
	}
	free(pack.buf);
	pack.buf = NULL;
	pack.cap = pack.at = 0;
	pack.of = NULL;
	return n;
}

// --- memory
//
// A tree lives for a moment, in blocks that are freed together. The allocator gives the pages of what stands free at the end
// of an arena back to the system, and the next statement takes them anew. Here each arena keeps as much as the tree of a few
// kB of text needs.

enum { KEEP_FREE = 2 << 20, LARGE_BLOCK = 1 << 20 };

#ifdef __GLIBC__
static void __attribute__((constructor)) keep_memory(void)
{
	mallopt(M_TRIM_THRESHOLD, KEEP_FREE);
	mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK);
}
#endif

// --- jobs

static void failed(tree_job *job, pg_error *e)
{
	job->message = strdup(e->message);
	job->cursor = e->cursorpos;
	pg_query_free_error(e);
}

static void parse(tree_job *job, const char *in)
{
	slow = job->slow;
	void *context = pg_query_enter_memory_context();
	pg_raw raw = pg_query_raw_parse(in, 0);
	free(raw.stderr_buffer);
	if (raw.error != NULL) {
		failed(job, raw.error);
	} else {
		sigjmp_buf *outer = PG_exception_stack, here;
		if (sigsetjmp(here, 0) == 0) { // what follows throws where memory is short
			PG_exception_stack = &here;
			if (too_deep(raw.tree, job->depth)) {
				job->too_deep = 1;
			} else {
				pg_bytes b = pg_query_nodes_to_protobuf(raw.tree);
				job->out = b.data;
				job->out_len = b.len;
				job->no_memory = pack.failed || b.data == NULL;
				pack.failed = 0;
			}
		} else {
			depth.base = NULL;
			FlushErrorState();
			job->no_memory = 1;
		}
		PG_exception_stack = outer;
	}
	pg_query_exit_memory_context(context);
	slow = 0;
}

static void deparse(tree_job *job, const char *in, size_t len)
{
	pg_bytes tree = {len, (char *)in};
	pg_text text = pg_query_deparse_protobuf(tree);
	if (text.error != NULL) {
		failed(job, text.error);
		return;
	}
	job->out = text.query;
	job->no_memory = text.query == NULL;
	job->out_len = text.query ? strlen(text.query) : 0;
}

static void work(tree_job *job, const char *in, size_t len)
{
	if (job->back)
		deparse(job, in, len);
	else
		parse(job, in);
}

// --- stacks

enum { STACK = 256 << 20, KEPT = 8, WARM = 256 << 10, LONG = 16 << 10 };

static struct {
	pthread_mutex_t lock;
	char *idle[KEPT];
	int n;
} stacks = {PTHREAD_MUTEX_INITIALIZER};

static __thread struct {
	tree_job *job;
	const char *in;
	size_t len;
	ucontext_t back, there;
} now;

static void enter(void) { work(now.job, now.in, now.len); }

// take_stack gives a stack whose pages are taken when they are used; the lowest is never there.
static char *take_stack(void)
{
	char *s = NULL;
	pthread_mutex_lock(&stacks.lock);
	if (stacks.n > 0)
		s = stacks.idle[--stacks.n];
	pthread_mutex_unlock(&stacks.lock);
	if (s == NULL) {
		s = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
		if (s == MAP_FAILED)
			return NULL;
		mprotect(s, 4096, PROT_NONE);
	}
	return s;
}

static void give_stack(char *s, int was_long)
{
	if (was_long)
		madvise(s, STACK - WARM, MADV_DONTNEED);
	pthread_mutex_lock(&stacks.lock);
	if (stacks.n < KEPT) {
		stacks.idle[stacks.n++] = s;
		s = NULL;
	}
	pthread_mutex_unlock(&stacks.lock);
	if (s != NULL)
		munmap(s, STACK);
}

// RATIO bounds what a recursion over a tree needs, as a multiple of what the copy needs.
enum { RATIO = 100, RESERVE = 64 << 10 };

// on_own_stack runs a job where there is no other stack: what fits on the thread's.
static void on_own_stack(tree_job *job, const char *in, size_t len)
{
	static __thread char *lowest;
	char here;
	if (lowest == NULL) {
		pthread_attr_t a;
		void *at;
		size_t size;
		if (pthread_getattr_np(pthread_self(), &a) != 0) {
			job->no_memory = 1;
			return;
		}
		pthread_attr_getstack(&a, &at, &size);
		pthread_attr_destroy(&a);
		lowest = at;
	}
	size_t left = &here - lowest;
	size_t fits = left > RESERVE ? (left - RESERVE) / RATIO : 0;
	if (job->depth > fits)
		job->depth = fits;
	work(job, in, len);
}

static void on_stack(tree_job *job, const char *in, size_t len, char *s)
{
	now.job = job;
	now.in = in;
	now.len = len;
	getcontext(&now.there);
	now.there.uc_stack.ss_sp = s;
	now.there.uc_stack.ss_size = STACK;
	now.there.uc_link = &now.back;
	makecontext(&now.there, enter, 0);
	swapcontext(&now.back, &now.there);
}

void tree_run(tree_job *job, const char *in, size_t len)
{
	char *s = job->own_stack || makecontext == NULL ? NULL : take_stack();
	if (s == NULL) {
		on_own_stack(job, in, len);
		return;
	}
	on_stack(job, in, len, s);
	give_stack(s, len > LONG);
}

size_t tree_used(tree_job *job, const char *in, size_t len)
{
	size_t n = STACK / 4096, i = 1;
	char *s = take_stack();
	unsigned char *there = malloc(n);
	madvise(s, STACK, MADV_DONTNEED);
	on_stack(job, in, len, s);
	mincore(s, STACK, there);
	while (i < n && !(there[i] & 1))
		i++;
	free(there);
	give_stack(s, 1);
	return STACK - i * 4096;
}
