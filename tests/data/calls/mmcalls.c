/*
 * Changes its address space in many ways and copies /proc/self/maps in between: mmcalls DIR, static, -O1.
 * Starts itself again first, so that a capture has its execve().
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/ipc.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/uio.h>
#include <sys/prctl.h>
#include <signal.h>
#ifndef __NR_mseal
#define __NR_mseal 462
#endif
#define P 4096UL
static const char *dir; static int dumps; static int marker = -1;
static long now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000L + t.tv_nsec; }
/* Copies /proc/self/maps into a file, no memory mapped meanwhile. */
static char big[1 << 18];
static void dump(const char *label) {
    char name[256]; snprintf(name, sizeof name, "%s/%02d-%s-%d", dir, dumps++, label, getpid());
    long before = now();
    int fd = open("/proc/self/maps", O_RDONLY); size_t used = 0; ssize_t got;
    while ((got = read(fd, big + used, sizeof big - used)) > 0) used += got;
    close(fd); long after = now();
    int out = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    char head[200]; int n = snprintf(head, sizeof head, "# label=%s pid=%d mono_ns_start=%ld\n", label, getpid(), before);
    if (write(out, head, n) != n || write(out, big, used) != (ssize_t)used) _exit(9);
    n = snprintf(head, sizeof head, "# mono_ns_end=%ld\n", after);
    if (write(out, head, n) != n) _exit(9);
    close(out);
}
static void say(const char *what, long ret) { fprintf(stderr, "%s: %ld %s\n", what, ret, ret < 0 ? strerror(errno) : ""); }
static __attribute__((noinline)) int deep(int pages) {
    volatile char frame[P]; frame[0] = pages; frame[P - 1] = 1;
    return pages ? deep(pages - 1) + frame[0] : 0;
}
static void *map(size_t pages, int prot) { void *p = mmap(NULL, pages * P, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); if (p == MAP_FAILED) _exit(8); return p; }
static void touch(char *p, int pages) { for (int i = 0; i < pages; i++) p[i * P] = i + 1; }

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    dir = argv[1];
    if (argc == 2) { char *again[] = { argv[0], argv[1], "again", NULL }; execv(argv[0], again); return 3; }
    memset(big, 1, sizeof big); /* so that the dumps write to nothing that is new */
    dump("begin");
    /* the stack: by writes, then by a read far below */
    deep(100); dump("stack-written");
    { volatile char *low = (char *)(((uintptr_t)__builtin_frame_address(0) & ~(P - 1)) - 300 * P); (void)*low; }
    dump("stack-read");
    /* fork: the child has the stack on a tree of its own */
    pid_t child = fork();
    if (!child) { deep(450); dump("child"); char *m = map(4, 3); touch(m, 4); dump("child-mapped"); _exit(0); }
    waitpid(child, NULL, 0);
    /* shared memory: one made new, and attached twice; one page in the middle taken away */
    int id = shmget(IPC_PRIVATE, 8 * P + 100, IPC_CREAT | 0600); say("shmget", id);
    char *one = shmat(id, NULL, 0), *two = shmat(id, NULL, SHM_RDONLY);
    touch(one, 3); dump("shmat");
    say("munmap in shm", munmap(one + 2 * P, P)); dump("shm-hole");
    say("shmdt", shmdt(one)); dump("shmdt");
    char *room = map(32, 3); touch(room, 32);
    void *over = shmat(id, room + 4 * P, SHM_REMAP); say("shmat remap", over == (void *)-1 ? -1 : 0); dump("shm-remap");
    say("shmdt", shmdt(over)); say("shmdt", shmdt(two)); shmctl(id, IPC_RMID, NULL); dump("shm-gone");
    /* remap_file_pages */
    int fd = memfd_create("pages", 0); if (ftruncate(fd, 16 * P)) return 4;
    char *file = mmap(NULL, 16 * P, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    touch(file, 16);
    say("remap_file_pages", syscall(SYS_remap_file_pages, file + 4 * P, 4 * P, 0UL, 9UL, 0UL)); dump("remapped-file");
    /* process_madvise on itself */
    char *adv = map(16, 3); touch(adv, 16);
    int self = syscall(SYS_pidfd_open, getpid(), 0);
    struct iovec v = { adv + 2 * P, 4 * P };
    say("process_madvise COLD", syscall(SYS_process_madvise, self, &v, 1UL, MADV_COLD, 0));
    dump("process-cold");
    say("process_madvise DONTFORK", syscall(SYS_process_madvise, self, &v, 1UL, MADV_DONTFORK, 0)); dump("process-dontfork");
    /* mseal, and what fails at it */
    char *seal = map(12, 3); touch(seal, 12);
    say("mseal", syscall(__NR_mseal, seal + 4 * P, 4 * P, 0UL)); dump("sealed");
    say("mprotect sealed", mprotect(seal + 2 * P, 8 * P, PROT_READ)); dump("sealed-mprotect");
    say("munmap sealed", munmap(seal + 2 * P, 8 * P)); dump("sealed-munmap");
    say("mlock sealed", mlock(seal + 3 * P, 2 * P)); dump("sealed-mlock");
    say("madvise sealed", madvise(seal + 2 * P, 8 * P, MADV_DONTDUMP)); dump("sealed-madvise");
    /* failed calls over holes */
    char *hole = map(12, 3); touch(hole, 2); munmap(hole + 6 * P, 2 * P);
    say("mprotect hole", mprotect(hole + 3 * P, 8 * P, PROT_READ)); dump("hole-mprotect");
    say("mlock hole", mlock(hole + 1 * P, 9 * P)); dump("hole-mlock");
    say("madvise hole", madvise(hole + 4 * P, 6 * P, MADV_DONTDUMP)); dump("hole-madvise");
    say("munmap hole", munmap(hole + 5 * P, 4 * P)); dump("hole-munmap");
    /* several VMAs at once */
    char *many = map(24, 3); touch(many, 24);
    mprotect(many + 4 * P, 4 * P, PROT_READ); munmap(many + 10 * P, 2 * P); madvise(many + 14 * P, 2 * P, MADV_DONTDUMP);
    char *to = map(32, 0);
    void *moved = mremap(many + 2 * P, 14 * P, 14 * P, MREMAP_MAYMOVE | MREMAP_FIXED, to + 4 * P);
    say("mremap many", moved == MAP_FAILED ? -1 : 0); dump("moved-many");
    moved = mremap(many + 18 * P, 2 * P, 2 * P, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to + 26 * P);
    say("mremap dontunmap", moved == MAP_FAILED ? -1 : 0); dump("dontunmap");
    touch(many + 18 * P, 2);
    /* MAP_FIXED over something, MAP_GROWSDOWN */
    char *fix = map(12, 3); touch(fix, 12);
    mmap(fix + 3 * P, 4 * P, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0); dump("fixed");
    char *space = map(1024, 0); munmap(space, 1024 * P);
    char *down = mmap(space + 900 * P, 2 * P, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1, 0);
    say("growsdown", down == MAP_FAILED ? -1 : 0);
    down[0] = 1; down[-40 * (long)P] = 1; dump("grown-down");
    /* policies */
    unsigned long node = 1;
    char *pol = map(12, 3); touch(pol, 12);
    say("mbind", syscall(SYS_mbind, pol + 2 * P, 6 * P, 2 /* bind */, &node, 64UL, 0U)); dump("mbind");
    say("home node", syscall(450 /* set_mempolicy_home_node */, pol + 4 * P, 2 * P, 0UL, 0UL)); dump("home-node");
    say("home node all", syscall(450, pol, 12 * P, 0UL, 0UL)); dump("home-node-all");
    /* vfork: the child works in this address space */
    child = vfork();
    if (!child) { mprotect(pol + 9 * P, P, PROT_READ); _exit(0); }
    waitpid(child, NULL, 0); dump("vforked");
    /* brk */
    char *top = sbrk(0); sbrk(64 * P); touch(top + P, 32); sbrk(-20 * (long)P); dump("brk");
    /* prctl */
    prctl(67 /* PR_SET_MEMORY_MERGE */, 1, 0, 0, 0); char *mg = map(4, 3); touch(mg, 4); dump("merge-any");
    /* huge pages never merge; attached segments are not merged away; protection keys keep apart */
    char *huge = mmap(NULL, 8UL << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    say("huge", huge == MAP_FAILED ? -1 : 0);
    huge[0] = 1; mprotect(huge + (2UL << 20), 2UL << 20, PROT_READ); dump("huge-split");
    mprotect(huge + (2UL << 20), 2UL << 20, PROT_READ | PROT_WRITE); dump("huge-back");
    id = shmget(IPC_PRIVATE, 10 * P, IPC_CREAT | 0600); one = shmat(id, NULL, 0);
    mprotect(one + 3 * P, 4 * P, PROT_READ); mprotect(one + 3 * P, 3 * P, PROT_READ | PROT_WRITE); dump("shm-part");
    mprotect(one + 6 * P, P, PROT_READ | PROT_WRITE); dump("shm-whole");
    mprotect(one + 4 * P, 2 * P, PROT_READ); mprotect(one + 5 * P, P, PROT_READ | PROT_WRITE); dump("shm-next");
    shmctl(id, IPC_RMID, NULL);
    char *keyed = map(12, 3); touch(keyed, 12);
    int key = syscall(SYS_pkey_alloc, 0UL, 0UL); say("pkey_alloc", key);
    say("pkey_mprotect", syscall(SYS_pkey_mprotect, keyed + 2 * P, 4 * P, 3UL, (long)key)); dump("keyed");
    say("mprotect", mprotect(keyed, 12 * P, PROT_READ)); dump("keyed-mprotect");
    say("pkey_mprotect 0", syscall(SYS_pkey_mprotect, keyed + 2 * P, 4 * P, 1UL, 0L)); dump("keyed-back");
    say("userfaultfd", syscall(SYS_userfaultfd, 1 /* UFFD_USER_MODE_ONLY */));
    return 0;
}
