/* Journals what a process does to the files below a folder, in order, so that a test can tell what a power cut would have left.

   Preloaded (LD_PRELOAD) before the C library. It changes nothing that the process does. Each record is an operation (one byte), two numbers
   (8 bytes each), and two byte strings (a length of 8 bytes, and the bytes), in the machine's byte order:

     C inode -, path         a file of that name was made
     W inode offset, -, data bytes were written
     T inode size            the file has that size
     B inode number, path    a sync of the file or folder begins
     E - number              that sync has ended well
     L inode -, new          the file got another name
     R - -, old, new         a name was changed
     U - -, path             a name is gone
     M - -, path             a folder was made

   An operation and its record are one step for all threads, so that the records stand in the order of what happened. A sync has two
   records, because others write meanwhile. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static int journal = -1;
static const char *root;
static size_t root_length;
static uint64_t syncs;

#define PATH (PATH_MAX + 32)

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("KALAMDB_POWER_JOURNAL");
    root = getenv("KALAMDB_POWER_ROOT");
    if (path == NULL || root == NULL) return;
    root_length = strlen(root);
    journal = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (journal < 0) abort();
}

static void put(const void *bytes, size_t length) {
    const char *next = bytes;
    while (length > 0) {
        ssize_t done = syscall(SYS_write, journal, next, length);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) abort();
        next += done;
        length -= (size_t)done;
    }
}

/* The whole record in one write, as far as the system does that: whoever reads the length of the file sees whole records. */
static void record(char operation, uint64_t one, uint64_t two, const void *first, uint64_t first_length, const void *second,
                   uint64_t second_length) {
    size_t length = 1 + 4 * 8 + first_length + second_length;
    char *bytes = malloc(length), *at = bytes;
    if (bytes == NULL) abort();
    *at++ = operation;
    memcpy(at, &one, 8), at += 8;
    memcpy(at, &two, 8), at += 8;
    memcpy(at, &first_length, 8), at += 8;
    memcpy(at, first, first_length), at += first_length;
    memcpy(at, &second_length, 8), at += 8;
    memcpy(at, second, second_length);
    put(bytes, length);
    free(bytes);
}

static void record_path(char operation, uint64_t inode, uint64_t number, const char *path) {
    record(operation, inode, number, path, strlen(path), "", 0);
}

static int is_below(const char *path) {
    return journal >= 0 && strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || path[root_length] == 0);
}

/* The path behind a descriptor; false where it is none of ours. */
static int path_of(int fd, char *path) {
    char link[64];
    if (journal < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX);
    if (length <= 0) return 0;
    path[length] = 0;
    return is_below(path);
}

/* The absolute path of a name below a folder's descriptor; false where it is none of ours. */
static int path_at(int folder, const char *name, char *path) {
    if (journal < 0) return 0;
    if (name[0] == '/') {
        snprintf(path, PATH, "%s", name);
    } else {
        char link[64], base[PATH_MAX + 1];
        if (folder == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t length = readlink(link, base, PATH_MAX);
        if (length <= 0) return 0;
        base[length] = 0;
        snprintf(path, PATH, "%s/%s", base, name);
    }
    return is_below(path);
}

static uint64_t inode_of(int fd) {
    struct stat stat;
    return fstat(fd, &stat) == 0 ? (uint64_t)stat.st_ino : 0;
}

static int opened(int folder, const char *name, int flags, mode_t mode) {
    char path[PATH];
    int is_tmpfile = (flags & O_TMPFILE) == O_TMPFILE;
    if (!(flags & (O_CREAT | O_TRUNC)) || is_tmpfile || !path_at(folder, name, path))
        return (int)syscall(SYS_openat, folder, name, flags, mode);
    pthread_mutex_lock(&order);
    int fd = (int)syscall(SYS_openat, folder, name, flags, mode);
    int error = errno;
    if (fd >= 0) {
        record_path('C', inode_of(fd), 0, path);
        if (flags & O_TRUNC) record('T', inode_of(fd), 0, "", 0, "", 0);
    }
    pthread_mutex_unlock(&order);
    errno = error;
    return fd;
}

#define MODE(flags)                                                     \
    mode_t mode = 0;                                                    \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                              \
        va_list list;                                                   \
        va_start(list, flags);                                          \
        mode = va_arg(list, mode_t);                                    \
        va_end(list);                                                   \
    }

int open(const char *name, int flags, ...) { MODE(flags) return opened(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags) return opened(AT_FDCWD, name, flags, mode); }
int openat(int folder, const char *name, int flags, ...) { MODE(flags) return opened(folder, name, flags, mode); }
int openat64(int folder, const char *name, int flags, ...) { MODE(flags) return opened(folder, name, flags, mode); }
int creat(const char *name, mode_t mode) { return opened(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *name, mode_t mode) { return opened(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }

/* Writes at the descriptor's own place, which has moved behind the bytes afterwards, wherever it was. */
ssize_t write(int fd, const void *bytes, size_t length) {
    char path[PATH];
    if (!path_of(fd, path)) return syscall(SYS_write, fd, bytes, length);
    pthread_mutex_lock(&order);
    ssize_t done = syscall(SYS_write, fd, bytes, length);
    int error = errno;
    if (done > 0) record('W', inode_of(fd), (uint64_t)(lseek(fd, 0, SEEK_CUR) - done), "", 0, bytes, (uint64_t)done);
    pthread_mutex_unlock(&order);
    errno = error;
    return done;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    char path[PATH];
    if (!path_of(fd, path)) return syscall(SYS_pwrite64, fd, bytes, length, offset);
    pthread_mutex_lock(&order);
    ssize_t done = syscall(SYS_pwrite64, fd, bytes, length, offset);
    int error = errno;
    if (done > 0) record('W', inode_of(fd), (uint64_t)offset, "", 0, bytes, (uint64_t)done);
    pthread_mutex_unlock(&order);
    errno = error;
    return done;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return pwrite64(fd, bytes, length, offset); }

/* As so many writes: a short one ends it, as it may. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
    char path[PATH];
    if (!path_of(fd, path)) return syscall(SYS_writev, fd, parts, count);
    ssize_t all = 0;
    for (int part = 0; part < count; part++) {
        ssize_t done = write(fd, parts[part].iov_base, parts[part].iov_len);
        if (done < 0) return all > 0 ? all : done;
        all += done;
        if ((size_t)done < parts[part].iov_len) break;
    }
    return all;
}

int ftruncate64(int fd, off64_t size) {
    char path[PATH];
    if (!path_of(fd, path)) return (int)syscall(SYS_ftruncate, fd, size);
    pthread_mutex_lock(&order);
    int done = (int)syscall(SYS_ftruncate, fd, size);
    int error = errno;
    if (done == 0) record('T', inode_of(fd), (uint64_t)size, "", 0, "", 0);
    pthread_mutex_unlock(&order);
    errno = error;
    return done;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

/* Space that is set aside is no content; where it makes the file longer, that is. */
static int allocated(int fd, int mode, off64_t offset, off64_t length) {
    char path[PATH];
    if (!path_of(fd, path)) return (int)syscall(SYS_fallocate, fd, mode, offset, length);
    pthread_mutex_lock(&order);
    int done = (int)syscall(SYS_fallocate, fd, mode, offset, length);
    int error = errno;
    struct stat stat;
    if (done == 0 && fstat(fd, &stat) == 0) record('T', (uint64_t)stat.st_ino, (uint64_t)stat.st_size, "", 0, "", 0);
    pthread_mutex_unlock(&order);
    errno = error;
    return done;
}

int fallocate(int fd, int mode, off_t offset, off_t length) { return allocated(fd, mode, offset, length); }
int fallocate64(int fd, int mode, off64_t offset, off64_t length) { return allocated(fd, mode, offset, length); }
int posix_fallocate(int fd, off_t offset, off_t length) { return allocated(fd, 0, offset, length) == 0 ? 0 : errno; }

static int synced(int fd, long call) {
    char path[PATH];
    if (!path_of(fd, path)) return (int)syscall(call, fd);
    pthread_mutex_lock(&order);
    uint64_t number = ++syncs;
    record_path('B', inode_of(fd), number, path);
    pthread_mutex_unlock(&order);
    int done = (int)syscall(call, fd);
    int error = errno;
    if (done == 0) {
        pthread_mutex_lock(&order);
        record('E', 0, number, "", 0, "", 0);
        pthread_mutex_unlock(&order);
    }
    errno = error;
    return done;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

static int renamed(int old_folder, const char *old, int new_folder, const char *new, unsigned flags) {
    char from[PATH], to[PATH];
    int is_ours = path_at(old_folder, old, from) && path_at(new_folder, new, to);
    if (!is_ours) return (int)syscall(SYS_renameat2, old_folder, old, new_folder, new, flags);
    pthread_mutex_lock(&order);
    int done = (int)syscall(SYS_renameat2, old_folder, old, new_folder, new, flags);
    int error = errno;
    if (done == 0) record('R', 0, 0, from, strlen(from), to, strlen(to));
    pthread_mutex_unlock(&order);
    errno = error;
    return done;
}

int rename(const char *old, const char *new) { return renamed(AT_FDCWD, old, AT_FDCWD, new, 0); }
int renameat(int from, const char *old, int to, const char *new) { return renamed(from, old, to, new, 0); }
int renameat2(int from, const char *old, int to, const char *new, unsigned flags) { return renamed(from, old, to, new, flags); }

static int linked(int old_folder, const char *old, int new_folder, const char *new, int flags) {
    char to[PATH];
    if (!path_at(new_folder, new, to)) return (int)syscall(SYS_linkat, old_folder, old, new_folder, new, flags);
    pthread_mutex_lock(&order);
    int done = (int)syscall(SYS_linkat, old_folder, old, new_folder, new, flags);
    int error = errno;
    struct stat stat;
    if (done == 0 && fstatat(new_folder, new, &stat, AT_SYMLINK_NOFOLLOW) == 0) record_path('L', (uint64_t)stat.st_ino, 0, to);
    pthread_mutex_unlock(&order);
    errno = error;
    return done;
}

int link(const char *old, const char *new) { return linked(AT_FDCWD, old, AT_FDCWD, new, 0); }
int linkat(int from, const char *old, int to, const char *new, int flags) { return linked(from, old, to, new, flags); }

static int unlinked(int folder, const char *name, int flags) {
    char path[PATH];
    if (!path_at(folder, name, path)) return (int)syscall(SYS_unlinkat, folder, name, flags);
    pthread_mutex_lock(&order);
    int done = (int)syscall(SYS_unlinkat, folder, name, flags);
    int error = errno;
    if (done == 0) record_path('U', 0, 0, path);
    pthread_mutex_unlock(&order);
    errno = error;
    return done;
}

int unlink(const char *name) { return unlinked(AT_FDCWD, name, 0); }
int unlinkat(int folder, const char *name, int flags) { return unlinked(folder, name, flags); }
int rmdir(const char *name) { return unlinked(AT_FDCWD, name, AT_REMOVEDIR); }

static int made(int folder, const char *name, mode_t mode) {
    char path[PATH];
    if (!path_at(folder, name, path)) return (int)syscall(SYS_mkdirat, folder, name, mode);
    pthread_mutex_lock(&order);
    int done = (int)syscall(SYS_mkdirat, folder, name, mode);
    int error = errno;
    if (done == 0) record_path('M', 0, 0, path);
    pthread_mutex_unlock(&order);
    errno = error;
    return done;
}

int mkdir(const char *name, mode_t mode) { return made(AT_FDCWD, name, mode); }
int mkdirat(int folder, const char *name, mode_t mode) { return made(folder, name, mode); }
