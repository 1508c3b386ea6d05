/* Preloaded into a process, this writes down what the process does to the files below one directory: each call that
 * changes a file, a name or what is on disk, with its data, in the order in which it happened.
 *
 * SEALPOOL_RECORD_ROOT names the directory, SEALPOOL_RECORD_LOG the file to append records to. A record is a header
 * (struct record, little-endian) followed by the first path, the second path and the data. file_recorder.py reads it.
 *
 * Rust's rustix, and with it Lance, renames files by system calls of its own, past the C library. Those that change
 * names are therefore also caught by a seccomp filter, which turns them into a signal, unless they carry a word that
 * tells them as ours.
 *
 * One lock is held over a call and its record, so their order is the true one. Files are told apart by inode number:
 * a number is used again only once its file is neither named nor open, and then a record 'created' says so.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

struct record {
    uint8_t kind;
    uint8_t unused[3];
    uint32_t path_length;
    uint32_t other_length;
    uint32_t unused_too;
    uint64_t inode;
    int64_t offset;
    uint64_t data_length;
};

enum { CREATED = 1, WRITE, TRUNCATE, SYNC_FILE, SYNC_DIRECTORY, RENAME, UNLINK, LINK, MAKE_DIRECTORY, REMOVE_DIRECTORY,
       MARK, MAPPED, UNKNOWN };

#define OURS 0x5ea1900dU /* the sixth argument of a call of ours; none of the calls caught has so many */
#define FDS 65536
static unsigned char watched[FDS];
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static char root[PATH_MAX];
static size_t root_length;
static int log_fd = -1;

#define REAL(name) ({ static __typeof__(&name) real_; if (!real_) real_ = dlsym(RTLD_NEXT, #name); real_; })
#define LOCKED for (int once_ = (pthread_mutex_lock(&lock), 1); once_; once_ = (pthread_mutex_unlock(&lock), 0))

static void put(const void *bytes, size_t length) {
    const char *next = bytes;
    while (length) {
        ssize_t done = syscall(SYS_write, log_fd, next, length);
        if (done <= 0) abort();
        next += done, length -= done;
    }
}

static void record(int kind, uint64_t inode, int64_t offset, const char *path, const char *other, const void *data,
                   size_t length) {
    struct record head = {.kind = kind, .inode = inode, .offset = offset, .data_length = length};
    head.path_length = path ? strlen(path) : 0;
    head.other_length = other ? strlen(other) : 0;
    size_t total = sizeof head + head.path_length + head.other_length + length;
    char *whole = malloc(total), *next = whole;
    if (!whole) abort();
    memcpy(next, &head, sizeof head), next += sizeof head;
    memcpy(next, path ? path : "", head.path_length), next += head.path_length;
    memcpy(next, other ? other : "", head.other_length), next += head.other_length;
    if (length) memcpy(next, data, length);
    put(whole, total);  /* in one go: a process that is killed leaves no torn record but at the very end */
    free(whole);
}

static void catch_system_calls(void);

__attribute__((constructor)) static void start(void) {
    const char *directory = getenv("SEALPOOL_RECORD_ROOT"), *path = getenv("SEALPOOL_RECORD_LOG");
    if (!directory || !path || !realpath(directory, root)) return;
    root_length = strlen(root);
    log_fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (log_fd < 0) abort();
    catch_system_calls();
}

/* The path relative to the root, in `out`, whose last part need not exist; NULL if it is elsewhere. */
static const char *below(int directory, const char *path, char *out) {
    char joined[PATH_MAX], parent[PATH_MAX];
    if (log_fd < 0 || !path) return NULL;
    if (path[0] == '/' || directory == AT_FDCWD) {
        if (strlen(path) >= sizeof joined) return NULL;
        strcpy(joined, path);
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
        ssize_t length = readlink(link, joined, sizeof joined - 1);
        if (length < 0 || length + 1 + strlen(path) >= sizeof joined) return NULL;
        joined[length] = '/';
        strcpy(joined + length + 1, path);
    }
    size_t end = strlen(joined);
    while (end > 1 && joined[end - 1] == '/') joined[--end] = 0;
    char *slash = strrchr(joined, '/'), whole[PATH_MAX];
    int kept = errno;
    if (!slash) {
        if (!getcwd(parent, sizeof parent)) return NULL;
        snprintf(whole, sizeof whole, "%.*s/%s", PATH_MAX - 300, parent, joined);
    } else {
        *slash = 0;
        if (!realpath(*joined ? joined : "/", parent)) { errno = kept; return NULL; }
        snprintf(whole, sizeof whole, "%.*s/%s", PATH_MAX - 300, parent, slash + 1);
    }
    errno = kept;
    if (strncmp(whole, root, root_length) || (whole[root_length] != '/' && whole[root_length])) return NULL;
    strcpy(out, whole[root_length] ? whole + root_length + 1 : "");
    return out;
}

static uint64_t inode_of(int fd) {
    struct stat status;
    return fstat(fd, &status) ? 0 : status.st_ino;
}

static int is_watched(int fd) { return fd >= 0 && fd < FDS && watched[fd]; }

static int opened(int directory, const char *path, int flags, mode_t mode) {
    char place[PATH_MAX];
    int fd = -1;
    if (log_fd < 0) return syscall(SYS_openat, directory, path, flags, mode);
    LOCKED {
        const char *name = below(directory, path, place);
        struct stat status;
        int kept = errno;
        int existed = name && !fstatat(directory, path, &status, 0);
        errno = kept;
        fd = syscall(SYS_openat, directory, path, flags, mode);
        if (fd >= 0 && fd < FDS) {
            /* A file without a name is gone after a crash; to name it would be a link from outside the root. */
            if ((flags & O_TMPFILE) == O_TMPFILE) name = NULL;
            watched[fd] = name != NULL;
            if (name && (flags & O_CREAT) && !existed) record(CREATED, inode_of(fd), 0, name, NULL, NULL, 0);
            else if (name && (flags & O_TRUNC)) record(TRUNCATE, inode_of(fd), 0, NULL, NULL, NULL, 0);
        }
    }
    return fd;
}

#define OPEN_MODE mode_t mode = 0; if (flags & (O_CREAT | __O_TMPFILE)) { va_list rest; va_start(rest, flags); \
    mode = va_arg(rest, mode_t); va_end(rest); }
int open(const char *path, int flags, ...) { OPEN_MODE return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { OPEN_MODE return opened(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { OPEN_MODE return opened(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { OPEN_MODE return opened(at, path, flags, mode); }
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int close(int fd) {
    if (fd >= 0 && fd < FDS) watched[fd] = 0;
    return syscall(SYS_close, fd);
}

static int copied(int from, int to) {
    if (from >= 0 && to >= 0 && from < FDS && to < FDS) watched[to] = watched[from];
    return to;
}
int dup(int fd) { return copied(fd, REAL(dup)(fd)); }
int dup2(int fd, int other) { return copied(fd, REAL(dup2)(fd, other)); }
int dup3(int fd, int other, int flags) { return copied(fd, REAL(dup3)(fd, other, flags)); }
static int control(int fd, int command, void *argument) {
    int result = syscall(SYS_fcntl, fd, command, argument);
    return command == F_DUPFD || command == F_DUPFD_CLOEXEC ? copied(fd, result) : result;
}
#define FCNTL va_list rest; va_start(rest, command); void *argument = va_arg(rest, void *); va_end(rest); \
    return control(fd, command, argument);
int fcntl(int fd, int command, ...) { FCNTL }
int fcntl64(int fd, int command, ...) { FCNTL }

/* What a write did is read back from the file: however many bytes it took from wherever. */
static void written(int fd, int64_t offset, ssize_t length) {
    if (length <= 0) return;
    char *data = malloc(length), link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int kept = errno, reader = syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC, 0);
    if (!data || reader < 0 || syscall(SYS_pread64, reader, data, length, offset) != length) abort();
    syscall(SYS_close, reader);
    record(WRITE, inode_of(fd), offset, NULL, NULL, data, length);
    free(data);
    errno = kept;
}

#define WRITING(call, where) \
    if (!is_watched(fd)) return call; \
    ssize_t done = -1; \
    LOCKED { done = call; if (done > 0) written(fd, where, done); } \
    return done;
#define HERE (lseek(fd, 0, SEEK_CUR) - done)
ssize_t write(int fd, const void *data, size_t n) { WRITING(syscall(SYS_write, fd, data, n), HERE) }
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { WRITING(syscall(SYS_pwrite64, fd, data, n, at), at) }
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) { WRITING(syscall(SYS_pwrite64, fd, data, n, at), at) }
ssize_t writev(int fd, const struct iovec *v, int n) { WRITING(REAL(writev)(fd, v, n), HERE) }
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t at) { WRITING(REAL(pwritev)(fd, v, n, at), at) }
ssize_t pwritev64(int fd, const struct iovec *v, int n, off64_t at) { WRITING(REAL(pwritev64)(fd, v, n, at), at) }
ssize_t pwritev2(int fd, const struct iovec *v, int n, off_t at, int flags) {
    WRITING(REAL(pwritev2)(fd, v, n, at, flags), at < 0 ? HERE : at)
}
ssize_t pwritev64v2(int fd, const struct iovec *v, int n, off64_t at, int flags) {
    WRITING(REAL(pwritev64v2)(fd, v, n, at, flags), at < 0 ? HERE : at)
}
ssize_t sendfile(int fd, int from, off_t *at, size_t n) { WRITING(REAL(sendfile)(fd, from, at, n), HERE) }
ssize_t sendfile64(int fd, int from, off64_t *at, size_t n) { WRITING(REAL(sendfile64)(fd, from, at, n), HERE) }
ssize_t copy_file_range(int from, off64_t *at, int fd, off64_t *to, size_t n, unsigned flags) {
    WRITING(REAL(copy_file_range)(from, at, fd, to, n, flags), to ? *to - done : HERE)
}

#define CHANGING(fd, call, what) \
    if (!is_watched(fd)) return call; \
    int result = -1; \
    LOCKED { result = call; if (!result) what; } \
    return result;
#define SIZED(size) record(TRUNCATE, inode_of(fd), size, NULL, NULL, NULL, 0)
int ftruncate(int fd, off_t size) { CHANGING(fd, syscall(SYS_ftruncate, fd, size), SIZED(size)) }
int ftruncate64(int fd, off64_t size) { CHANGING(fd, syscall(SYS_ftruncate, fd, size), SIZED(size)) }
static int64_t size_of(int fd) { struct stat status; return fstat(fd, &status) ? 0 : status.st_size; }
int fallocate(int fd, int mode, off_t at, off_t n) {
    CHANGING(fd, REAL(fallocate)(fd, mode, at, n),
             mode & ~FALLOC_FL_KEEP_SIZE ? record(UNKNOWN, 0, 0, "fallocate", NULL, NULL, 0) : SIZED(size_of(fd)))
}
int fallocate64(int fd, int mode, off64_t at, off64_t n) { return fallocate(fd, mode, at, n); }
int posix_fallocate(int fd, off_t at, off_t n) { CHANGING(fd, REAL(posix_fallocate)(fd, at, n), SIZED(size_of(fd))) }
int posix_fallocate64(int fd, off64_t at, off64_t n) { return posix_fallocate(fd, at, n); }
int truncate(const char *path, off_t size) {
    int fd = open(path, O_WRONLY | O_CLOEXEC), result;
    if (fd < 0) return -1;
    result = ftruncate(fd, size);
    close(fd);
    return result;
}
int truncate64(const char *path, off64_t size) { return truncate(path, size); }

static void synced(int fd) {
    struct stat status;
    char link[64], path[PATH_MAX], place[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0 || fstat(fd, &status)) return;
    path[length] = 0;
    const char *name = below(AT_FDCWD, path, place);
    if (name) record(S_ISDIR(status.st_mode) ? SYNC_DIRECTORY : SYNC_FILE, status.st_ino, 0, name, NULL, NULL, 0);
}
/* With SEALPOOL_RECORD_FAST nothing waits for the disk: what is on it is decided in the replay. */
static int sync_now(int number, int fd) {
    return getenv("SEALPOOL_RECORD_FAST") ? (fcntl(fd, F_GETFD) < 0 ? -1 : 0) : syscall(number, fd);
}
int fsync(int fd) { CHANGING(fd, sync_now(SYS_fsync, fd), synced(fd)) }
int fdatasync(int fd) { CHANGING(fd, sync_now(SYS_fdatasync, fd), synced(fd)) }
/* None of these is relied on: they count as nothing, which is the worse for the process. */
void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset) {
    void *result = (void *)syscall(SYS_mmap, at, n, protection, flags, fd, offset);
    if (result != MAP_FAILED && is_watched(fd) && (flags & MAP_SHARED) && (protection & PROT_WRITE))
        LOCKED record(MAPPED, inode_of(fd), offset, NULL, NULL, NULL, 0);
    return result;
}
void *mmap64(void *at, size_t n, int protection, int flags, int fd, off64_t offset) {
    return mmap(at, n, protection, flags, fd, offset);
}

/* `kind` of a change of names: one path, or two, of which both must lie below the root. */
static void named(int kind, const char *old, const char *other, int paths) {
    if (!old && !other) return;
    if (paths == 2 && (!old || !other)) record(UNKNOWN, 0, 0, "across the root", NULL, NULL, 0);
    else record(kind, 0, 0, old, other, NULL, 0);
}
#define ONE_NAME(call, kind, at, path) \
    char place[PATH_MAX]; \
    int result = -1; \
    LOCKED { \
        const char *name = below(at, path, place); \
        result = call; \
        if (!result) named(kind, name, NULL, 1); \
    } \
    return result;
#define TWO_NAMES(call, kind, at, path, other_at, other_path) \
    char place[PATH_MAX], other_place[PATH_MAX]; \
    int result = -1; \
    LOCKED { \
        const char *name = below(at, path, place), *other = below(other_at, other_path, other_place); \
        result = call; \
        if (!result) named(kind, name, other, 2); \
    } \
    return result;
int renameat2(int at, const char *from, int to_at, const char *to, unsigned flags) {
    TWO_NAMES(syscall(SYS_renameat2, at, from, to_at, to, flags, OURS), (flags & RENAME_EXCHANGE ? UNKNOWN : RENAME), at,
              from, to_at, to)
}
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int at, const char *from, int to_at, const char *to) { return renameat2(at, from, to_at, to, 0); }
int linkat(int at, const char *from, int to_at, const char *to, int flags) {
    TWO_NAMES(syscall(SYS_linkat, at, from, to_at, to, flags, OURS), LINK, at, from, to_at, to)
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }
int unlinkat(int at, const char *path, int flags) {
    ONE_NAME(syscall(SYS_unlinkat, at, path, flags, 0, 0, OURS), (flags & AT_REMOVEDIR ? REMOVE_DIRECTORY : UNLINK), at, path)
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
    struct stat status;
    return lstat(path, &status) ? -1 : unlinkat(AT_FDCWD, path, S_ISDIR(status.st_mode) ? AT_REMOVEDIR : 0);
}
int mkdirat(int at, const char *path, mode_t mode) {
    ONE_NAME(syscall(SYS_mkdirat, at, path, mode, 0, 0, OURS), MAKE_DIRECTORY, at, path)
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
int symlinkat(const char *target, int at, const char *path) {
    ONE_NAME(syscall(SYS_symlinkat, target, at, path), UNKNOWN, at, path)
}
int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#define REGISTERS(context) greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs
#define ARGUMENT(i) r[(const int[]){REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9}[i]]
#define RESULT r[REG_RAX]
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#define REGISTERS(context) unsigned long long *r = ((ucontext_t *)context)->uc_mcontext.regs
#define ARGUMENT(i) r[i]
#define RESULT r[0]
#endif

static void caught(int number, siginfo_t *info, void *context) {
    (void)number;
    REGISTERS(context);
    const char *path = (const char *)ARGUMENT(1), *other = (const char *)ARGUMENT(3);
    int kept = errno, result = -1;
    switch (info->si_syscall) {
        case SYS_renameat: result = renameat2(ARGUMENT(0), path, ARGUMENT(2), other, 0); break;
        case SYS_renameat2: result = renameat2(ARGUMENT(0), path, ARGUMENT(2), other, ARGUMENT(4)); break;
        case SYS_linkat: result = linkat(ARGUMENT(0), path, ARGUMENT(2), other, ARGUMENT(4)); break;
        case SYS_unlinkat: result = unlinkat(ARGUMENT(0), path, ARGUMENT(2)); break;
        case SYS_mkdirat: result = mkdirat(ARGUMENT(0), path, ARGUMENT(2)); break;
    }
    RESULT = result < 0 ? -errno : result;
    errno = kept;
}

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define IF(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no)
static void catch_system_calls(void) {
    struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO | SA_NODEFER};
    struct sock_filter program[] = {
        LOAD(arch), IF(ARCHITECTURE, 0, 8),
        LOAD(nr), IF(SYS_renameat, 4, 0), IF(SYS_renameat2, 3, 0), IF(SYS_linkat, 2, 0), IF(SYS_unlinkat, 1, 0),
        IF(SYS_mkdirat, 0, 2),
        LOAD(args[5]), IF(OURS, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
    };
    struct sock_fprog filter = {.len = sizeof program / sizeof *program, .filter = program};
    if (sigaction(SIGSYS, &action, NULL) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)) abort();
}

/* For the recorded process itself: what it knows, at its place among the records. */
void sealpool_record_mark(const char *text) {
    if (log_fd >= 0) LOCKED record(MARK, 0, 0, text, NULL, NULL, 0);
}
