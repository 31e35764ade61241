/*
 * ptrace for a User-Mode-Linux kernel on a processor with more register state
 * than that kernel knows.
 *
 * UML saves and restores its processes' registers with PTRACE_GETREGSET and
 * PTRACE_SETREGSET of NT_X86_XSTATE. Up to Linux 6.13 its buffer has room for
 * AVX-512 but not for AMX. Linux reads such a register set in part, but writes
 * it whole or not at all (EFAULT), and the guest's init dies of "ptrace set fp
 * regs failed". So write it whole: what UML knows, and zeroes after it, which
 * say "initial state" for components that no guest process can have used, as
 * AMX must be asked for with an arch_prctl that the guest kernel refuses.
 *
 * Loaded with LD_PRELOAD. The buffer is static since UML's kernel stacks are
 * small; one thread of UML uses ptrace.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char whole[32768];
static size_t whole_len;

static long write_whole(long pid, struct iovec *part)
{
	struct iovec iov = { whole, sizeof(whole) };

	if (!whole_len) {
		long err = syscall(SYS_ptrace, PTRACE_GETREGSET, pid, NT_X86_XSTATE, &iov);

		if (err < 0)
			return err;
		whole_len = iov.iov_len;
		memset(whole, 0, sizeof(whole));
	}
	if (part->iov_len >= whole_len)
		return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, NT_X86_XSTATE, part);
	memcpy(whole, part->iov_base, part->iov_len);
	iov.iov_len = whole_len;
	return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, NT_X86_XSTATE, &iov);
}

long ptrace(enum __ptrace_request request, ...)
{
	static long (*libc_ptrace)(enum __ptrace_request, ...);
	__builtin_va_list args;
	long pid;
	void *addr, *data;

	__builtin_va_start(args, request);
	pid = __builtin_va_arg(args, pid_t);
	addr = __builtin_va_arg(args, void *);
	data = __builtin_va_arg(args, void *);
	__builtin_va_end(args);

	if (request == PTRACE_SETREGSET && addr == (void *)NT_X86_XSTATE)
		return write_whole(pid, data);
	if (!libc_ptrace)
		libc_ptrace = (long (*)(enum __ptrace_request, ...))dlsym(RTLD_NEXT, "ptrace");
	return libc_ptrace(request, pid, addr, data);
}
