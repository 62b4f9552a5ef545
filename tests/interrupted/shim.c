/* Counts the calls that change files below a folder, and at the n-th ends the process or fails as a full disk does.
 *
 * Loaded by LD_PRELOAD: it stands between the C library and Python, Arrow, delta-rs and torch. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT = 0, KILL = 1, FULL = 2 };
static char folder[4096];
static atomic_long calls, last;
static atomic_int mode = -1;

void shim_arm(const char *below, long n, int what) {
    strncpy(folder, below, sizeof folder - 1);
    calls = 0;
    last = n;
    mode = what;
}

long shim_calls(void) { return calls; }

/* Whether the call fails for want of room. Only calls that need room do: deletions work on a full disk. */
static int stop(const char *path, int needs_room) {
    if (mode < 0 || !path || strncmp(path, folder, strlen(folder))) return 0;
    long n = ++calls;
    if (mode == KILL && n == last) raise(SIGKILL);
    if (mode == FULL && n >= last && needs_room) { errno = ENOSPC; return 1; }
    return 0;
}

static int stop_file(int file, int needs_room) {
    if (mode < 0) return 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    return stop(path, needs_room);
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define FILE_CALL(type, name, params, args) \
    type name params { REAL(name); if (stop_file(file, 1)) return -1; return real args; }

FILE_CALL(ssize_t, write, (int file, const void *data, size_t n), (file, data, n))
FILE_CALL(ssize_t, writev, (int file, const struct iovec *data, int n), (file, data, n))
FILE_CALL(ssize_t, pwrite, (int file, const void *data, size_t n, off_t at), (file, data, n, at))
FILE_CALL(ssize_t, pwrite64, (int file, const void *data, size_t n, off64_t at), (file, data, n, at))
FILE_CALL(ssize_t, copy_file_range, (int from, off64_t *a, int file, off64_t *b, size_t n, unsigned f), (from, a, file, b, n, f))

int ftruncate(int file, off_t n) { REAL(ftruncate); return stop_file(file, 0) ? -1 : real(file, n); }
int ftruncate64(int file, off64_t n) { REAL(ftruncate64); return stop_file(file, 0) ? -1 : real(file, n); }
int posix_fallocate(int file, off_t a, off_t n) { REAL(posix_fallocate); return stop_file(file, 1) ? ENOSPC : real(file, a, n); }
int posix_fallocate64(int file, off64_t a, off64_t n) { REAL(posix_fallocate64); return stop_file(file, 1) ? ENOSPC : real(file, a, n); }
int fsync(int file) { REAL(fsync); return stop_file(file, 0) ? -1 : real(file); }
int fdatasync(int file) { REAL(fdatasync); return stop_file(file, 0) ? -1 : real(file); }

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); va_list rest; va_start(rest, flags); mode_t bits = va_arg(rest, mode_t); va_end(rest); \
        if ((flags & O_CREAT) && access(path, F_OK) && stop(path, 1)) return -1; \
        return real(path, flags, bits); }
OPEN(open)
OPEN(open64)
#define OPENAT(name) \
    int name(int at, const char *path, int flags, ...) { \
        REAL(name); va_list rest; va_start(rest, flags); mode_t bits = va_arg(rest, mode_t); va_end(rest); \
        if ((flags & O_CREAT) && faccessat(at, path, F_OK, 0) && stop(path, 1)) return -1; \
        return real(at, path, flags, bits); }
OPENAT(openat)
OPENAT(openat64)

int mkdir(const char *path, mode_t bits) { REAL(mkdir); return stop(path, 1) ? -1 : real(path, bits); }
int rmdir(const char *path) { REAL(rmdir); return stop(path, 0) ? -1 : real(path); }
int unlink(const char *path) { REAL(unlink); return stop(path, 0) ? -1 : real(path); }
int unlinkat(int at, const char *path, int f) { REAL(unlinkat); return stop(path, 0) ? -1 : real(at, path, f); }
int rename(const char *a, const char *path) { REAL(rename); return stop(path, 0) ? -1 : real(a, path); }
int link(const char *a, const char *path) { REAL(link); return stop(path, 1) ? -1 : real(a, path); }
int linkat(int x, const char *a, int y, const char *path, int f) {
    REAL(linkat); return stop(path, 1) ? -1 : real(x, a, y, path, f); }
int renameat2(int x, const char *a, int y, const char *path, unsigned f) {
    REAL(renameat2); return stop(path, 0) ? -1 : real(x, a, y, path, f); }
