// What the tests' containers run: one static program of many verbs, the only file of their image.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <sched.h>

extern char **environ;

static void nap(long ms) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&t, &t) && errno == EINTR) {}
}
static void forever(void) { for (;;) nap(1000000); }
static void say(const char *s) { printf("%s\n", s); fflush(stdout); }
static void on_term(int s) { (void)s; _exit(7); }
static void on_hup(int s) { char b[] = "signal 00\n"; if (s < 10) { b[7] = '0' + s; b[8] = '\n'; b[9] = 0; } else { b[7] = '0' + s / 10; b[8] = '0' + s % 10; } write(1, b, strlen(b)); }
static void verdict(const char *what, long r) {
    printf("%s %s\n", what, r >= 0 ? "allowed" : errno == EPERM ? "EPERM" : errno == ENOSYS ? "ENOSYS" : strerror(errno));
}

static int attempts(void) {
    verdict("mount", mount("tmpfs", "/dev/shm", "tmpfs", 0, 0));
    verdict("umount", umount("/proc"));
    verdict("unshare-user", unshare(CLONE_NEWUSER));
    verdict("unshare-mount", unshare(CLONE_NEWNS));
    verdict("clone-user", syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
    verdict("clone3", syscall(SYS_clone3, 0, 0));
    verdict("ptrace", ptrace(PTRACE_TRACEME, 0, 0, 0));
    verdict("bpf", syscall(SYS_bpf, 0, 0, 0));
    verdict("perf", syscall(SYS_perf_event_open, 0, 0, 0, 0, 0));
    verdict("keyctl", syscall(SYS_keyctl, 0, 0, 0));
    verdict("userfaultfd", syscall(SYS_userfaultfd, 0));
    verdict("io_uring", syscall(425, 1, 0));
    verdict("open_by_handle", syscall(SYS_open_by_handle_at, 0, 0, 0));
    verdict("kexec", syscall(SYS_kexec_load, 0, 0, 0, 0));
    verdict("module", syscall(SYS_init_module, 0, 0, 0));
    verdict("reboot", syscall(SYS_reboot, 1, 2, 3, 0));
    verdict("settime", syscall(SYS_settimeofday, 0, 0));
    verdict("sethostname", sethostname("x", 1));
    verdict("setns", setns(0, 0));
    verdict("pivot_root", syscall(SYS_pivot_root, "/", "/"));
    verdict("future", syscall(4000));
#ifdef __x86_64__
    verdict("x32-mount", syscall(0x40000000 | SYS_mount, "tmpfs", "/dev/shm", "tmpfs", 0, 0));
#endif
    struct sockaddr_in a = {.sin_family = AF_INET};
    verdict("vsock", socket(AF_VSOCK, SOCK_STREAM, 0));
    verdict("tiocsti", ioctl(0, TIOCSTI, "x"));
    verdict("write-proc-sys", open("/proc/sys/kernel/domainname", O_WRONLY));
    verdict("write-sysrq", open("/proc/sysrq-trigger", O_WRONLY));
    verdict("write-sys", open("/sys/kernel/uevent_helper", O_WRONLY));
    mknod("/disk", S_IFBLK | 0600, makedev(254, 0));
    verdict("disk", open("/disk", O_RDONLY));
    mknod("/dev/mem2", S_IFCHR | 0600, makedev(1, 1));
    verdict("mem", open("/dev/mem2", O_RDONLY));
    verdict("init-exe", open("/proc/1/exe", O_RDONLY));
    verdict("init-root", open("/proc/1/root/bin", O_RDONLY));
    int k = open("/proc/kcore", O_RDONLY); char c;
    printf("kcore %ld\n", k < 0 ? -1L : (long)read(k, &c, 1));
    (void)a;
    fflush(stdout);
    return 0;
}

static int show(const char *path) {
    char b[4096]; ssize_t n; int f = open(path, O_RDONLY);
    if (f < 0) { perror(path); return 1; }
    while ((n = read(f, b, sizeof b)) > 0) write(1, b, n);
    return 0;
}

static int serve(int port, const char *name) {
    int s = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (bind(s, (void *)&a, sizeof a) || listen(s, 512)) { perror("serve"); return 1; }
    say("listening");
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int c = accept(s, 0, 0);
        if (c < 0) continue;
        if (fork() == 0) {
            char b[65536]; ssize_t n;
            close(s);
            write(c, name, strlen(name)); write(c, "\n", 1);
            while ((n = read(c, b, sizeof b)) > 0)
                for (ssize_t o = 0; o < n;) { ssize_t w = write(c, b + o, n - o); if (w <= 0) _exit(1); o += w; }
            // The client has said all; what was echoed is ended only now.
            write(c, "end\n", 4);
            _exit(0);
        }
        close(c);
    }
}

int main(int argc, char **argv) {
    const char *v = argc > 1 ? argv[1] : "args";
    long n = argc > 2 ? atol(argv[2]) : 0;
    if (!strcmp(v, "exit")) return n;
    if (!strcmp(v, "die")) { raise(n); forever(); }
    if (!strcmp(v, "sleep")) { say("asleep"); if (n) nap(n); else forever(); return 0; }
    if (!strcmp(v, "args")) { for (int i = 0; i < argc; i++) say(argv[i]); return 0; }
    if (!strcmp(v, "env")) { for (char **e = environ; *e; e++) say(*e); return 0; }
    if (!strcmp(v, "cat")) return show(argv[2]);
    if (!strcmp(v, "try")) return attempts();
    if (!strcmp(v, "serve")) return serve(n, argc > 3 ? argv[3] : "hello");
    if (!strcmp(v, "polite")) { signal(SIGTERM, on_term); say("ready"); forever(); }
    if (!strcmp(v, "stubborn")) { signal(SIGTERM, SIG_IGN); say("ready"); forever(); }
    if (!strcmp(v, "hup")) { signal(SIGHUP, on_hup); signal(SIGUSR1, on_hup); say("ready"); forever(); }
    if (!strcmp(v, "pid")) {
        char h[65]; gethostname(h, sizeof h);
        gid_t g[64]; int c = getgroups(64, g);
        printf("pid %d ppid %d host %s uid %d gid %d groups", getpid(), getppid(), h, getuid(), getgid());
        for (int i = 0; i < c; i++) printf(" %d", g[i]);
        char d[4096]; printf(" cwd %s\n", getcwd(d, sizeof d));
        return 0;
    }
    if (!strcmp(v, "ls")) {
        DIR *d = opendir(argv[2]); struct dirent *e;
        if (!d) { perror(argv[2]); return 1; }
        while ((e = readdir(d))) if (e->d_name[0] != '.') say(e->d_name);
        return 0;
    }
    if (!strcmp(v, "fds")) { for (int i = 0; i < 256; i++) if (fcntl(i, F_GETFD) >= 0) printf("%d ", i); puts(""); return 0; }
    if (!strcmp(v, "write")) {
        int f = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC, 0644);
        if (f < 0) { perror(argv[2]); return 1; }
        write(f, "x", 1); say("written"); return 0;
    }
    if (!strcmp(v, "stat")) {
        for (int i = 2; i < argc; i++) {
            struct stat s;
            if (lstat(argv[i], &s)) { perror(argv[i]); return 1; }
            printf("%s %d:%d %o\n", argv[i], (int)s.st_uid, (int)s.st_gid, s.st_mode & 07777);
        }
        return 0;
    }
    if (!strcmp(v, "chown")) { if (chown(argv[4], n, atol(argv[3]))) { perror(argv[4]); return 1; } return 0; }
    if (!strcmp(v, "make")) {
        // A file and a closed folder, by root and by user 33; then what they look like.
        close(open("/by-root", O_WRONLY | O_CREAT, 04755)); chmod("/by-root", 04755);
        mkdir("/closed", 0); close(open("/closed/in", O_WRONLY | O_CREAT, 0600));
        mkdir("/webs", 0777); chmod("/webs", 0777);
        close(open("/etc/passwd", O_WRONLY | O_APPEND));
        if (setgroups(0, 0) || setgid(34) || setuid(33)) { perror("setuid"); return 1; }
        close(open("/webs/by-web", O_WRONLY | O_CREAT, 0644));
        say("made"); forever();
    }
    if (!strcmp(v, "spam")) { for (long i = 0; i < n; i++) printf("line %ld\n", i); return 0; }
    if (!strcmp(v, "streams")) { say("to out"); fprintf(stderr, "to err\n"); printf("no newline"); return 0; }
    if (!strcmp(v, "eat")) {
        for (long i = 0; i < n; i++) { char *p = malloc(1 << 20); memset(p, 1, 1 << 20); }
        say("fed"); forever();
    }
    if (!strcmp(v, "eat-in-child")) {
        if (fork() == 0) for (;;) { char *p = malloc(1 << 20); memset(p, 1, 1 << 20); }
        int s; wait(&s);
        printf("child %d\n", WIFSIGNALED(s) ? WTERMSIG(s) : -1); fflush(stdout);
        return n;
    }
    if (!strcmp(v, "bomb")) {
        long made = 0;
        for (int i = 0; i < 10000; i++) { pid_t p = fork(); if (p < 0) break; if (p == 0) { forever(); } made++; }
        printf("made %ld\n", made); fflush(stdout); forever();
    }
    if (!strcmp(v, "burn")) { say("burning"); for (volatile long i = 0;; i++) {} }
    if (!strcmp(v, "orphans")) {
        for (int i = 0; i < 20; i++) { pid_t p = fork(); if (p == 0) { if (fork() == 0) _exit(0); _exit(0); } waitpid(p, 0, 0); }
        nap(200);
        int zombies = 0; DIR *d = opendir("/proc"); struct dirent *e;
        while ((e = readdir(d))) {
            char p[300], b[512] = {0}; snprintf(p, sizeof p, "/proc/%s/stat", e->d_name);
            int f = open(p, O_RDONLY); if (f < 0) continue;
            read(f, b, 511); close(f);
            char *q = strrchr(b, ')'); if (q && q[2] == 'Z') zombies++;
        }
        printf("zombies %d\n", zombies);
        return 0;
    }
    if (!strcmp(v, "daemon")) { if (fork() == 0) { setsid(); say("child"); forever(); } nap(50); return n; }
    if (!strcmp(v, "copy")) { char b[4096]; ssize_t r; while ((r = read(0, b, sizeof b)) > 0) write(1, b, r); return 0; }
    if (!strcmp(v, "tty")) {
        struct winsize w = {0}; signal(SIGWINCH, SIG_IGN); ioctl(0, TIOCGWINSZ, &w);
        printf("tty %d %d %dx%d\n", isatty(0), isatty(1), w.ws_row, w.ws_col); fflush(stdout);
        char l[100]; while (fgets(l, 100, stdin)) { ioctl(0, TIOCGWINSZ, &w); printf("size %dx%d\n", w.ws_row, w.ws_col); fflush(stdout); }
        return 3;
    }
    if (!strcmp(v, "reopen")) { int f = open("/dev/stdout", O_WRONLY); if (f < 0) { perror("stdout"); return 1; } write(f, "again\n", 6); return 0; }
    fprintf(stderr, "unknown verb %s\n", v);
    return 99;
}
