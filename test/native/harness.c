/*
 * Executes single instructions on this machine's own processor: cases in on stdin, results out on
 * stdout, both in the layouts below (test/native/harness.ts is the other end). Every case is one
 * return from a signal handler with RFLAGS.TF set; the trap or fault that follows brings the state
 * back, and the handler goes on with the next case.
 */
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <asm/prctl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum {
  PAGE = 4096,
  CODE = 0x10000000,
  DATA = 0x20000000,
  STACK = 0x30000000,
  GS_BASE = 0x08000000,
  DATA_WINDOW = 0xf00,
  STACK_WINDOW = 0x780,
  WINDOW = 256,
  FX = 416,
  STEPS_LIMIT = 65536,
};

enum { REPEATS = 1, HAS_FX = 2, COMPATIBILITY = 4, SMALL_ES = 8 };

/* Selectors of Linux for user code of 64 and 32 bits, and user data. */
enum { CODE_64 = 0x33, CODE_32 = 0x23, USER_DATA = 0x2b };
/* Entry 0 of the LDT: the data page alone. */
enum { SMALL_DATA = 0x07 };

struct test_case {
  uint8_t code[16];
  uint8_t length, flags;
  uint16_t code_offset;
  uint32_t reserved;
  uint64_t rflags;
  uint64_t gpr[16];
  uint8_t data[WINDOW], stack[WINDOW];
  uint8_t fx[FX];
};

struct result {
  uint32_t vector, error;
  uint64_t cr2, rip, rflags;
  uint64_t gpr[16];
  uint8_t fx[FX];
  uint32_t steps, changes;
};

_Static_assert(sizeof(struct test_case) == 1088, "layout of a case");
_Static_assert(sizeof(struct result) == 584, "layout of a result");

static const int GREGS[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                              REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

static uint8_t *code_alias;
static uint8_t background[2 * PAGE], expected[2 * PAGE];
static const struct test_case *cases;
static size_t case_count, current;
static uint32_t steps;
static int started;
static FILE *out;

static void die(const char *what) {
  fprintf(stderr, "harness: %s\n", what);
  _exit(3);
}

static uint64_t start_of(const struct test_case *c) { return CODE + (uint64_t)c->code_offset; }

static void prepare(ucontext_t *context) {
  const struct test_case *c = &cases[current];
  greg_t *gregs = context->uc_mcontext.gregs;
  memcpy(expected, background, sizeof expected);
  memcpy(expected + DATA_WINDOW, c->data, WINDOW);
  memcpy(expected + PAGE + STACK_WINDOW, c->stack, WINDOW);
  memcpy((void *)DATA, expected, PAGE);
  memcpy((void *)STACK, expected + PAGE, PAGE);
  memset(code_alias, 0xcc, PAGE);
  size_t room = PAGE - c->code_offset;
  memcpy(code_alias + c->code_offset, c->code, c->length < room ? c->length : room);
  for (int i = 0; i < 16; i++) gregs[GREGS[i]] = (greg_t)c->gpr[i];
  gregs[REG_RIP] = (greg_t)start_of(c);
  gregs[REG_EFL] = (greg_t)(c->rflags | 0x302);
  uint64_t selectors = (uint64_t)gregs[REG_CSGSFS] & 0x0000ffffffff0000;
  selectors |= c->flags & COMPATIBILITY ? CODE_32 : CODE_64;
  gregs[REG_CSGSFS] = (greg_t)(selectors | (uint64_t)USER_DATA << 48);
  /* No signal saves these two; code of 32 bits needs them. */
  int es = c->flags & SMALL_ES ? SMALL_DATA : USER_DATA;
  __asm__ volatile("mov %0, %%ds\n\tmov %1, %%es" : : "r"(USER_DATA), "r"(es));
  if (c->flags & HAS_FX) {
    uint8_t *frame = (uint8_t *)context->uc_mcontext.fpregs;
    uint32_t mask;
    memcpy(&mask, frame + 28, 4);
    memcpy(frame, c->fx, FX);
    memcpy(frame + 28, &mask, 4);
    uint64_t in_use;
    memcpy(&in_use, frame + 512, 8);
    in_use |= 3;
    memcpy(frame + 512, &in_use, 8);
  }
  steps = 0;
}

static void record(const ucontext_t *context) {
  const greg_t *gregs = context->uc_mcontext.gregs;
  struct result r;
  memset(&r, 0, sizeof r);
  int vector = (int)gregs[REG_TRAPNO];
  r.vector = (uint32_t)vector;
  r.error = vector == 1 ? 0 : (uint32_t)gregs[REG_ERR];
  r.cr2 = vector == 14 ? (uint64_t)gregs[REG_CR2] : 0;
  r.rip = (uint64_t)gregs[REG_RIP];
  r.rflags = (uint64_t)gregs[REG_EFL];
  for (int i = 0; i < 16; i++) r.gpr[i] = (uint64_t)gregs[GREGS[i]];
  memcpy(r.fx, context->uc_mcontext.fpregs, FX);
  r.steps = steps;
  static struct change {
    uint16_t offset;
    uint8_t value, zero;
  } changes[2 * PAGE];
  for (int page = 0; page < 2; page++) {
    const uint8_t *now = (const uint8_t *)(uintptr_t)(page ? STACK : DATA);
    const uint8_t *before = expected + page * PAGE;
    if (memcmp(now, before, PAGE) == 0) continue;
    for (int i = 0; i < PAGE; i++)
      if (now[i] != before[i])
        changes[r.changes++] = (struct change){(uint16_t)(page * PAGE + i), now[i], 0};
  }
  if (fwrite(&r, sizeof r, 1, out) != 1) die("cannot write a result");
  if (r.changes && fwrite(changes, sizeof changes[0], r.changes, out) != r.changes)
    die("cannot write a result");
}

__attribute__((used)) static void on_signal(int signal, siginfo_t *info, void *opaque) {
  ucontext_t *context = opaque;
  (void)signal;
  (void)info;
  if (started) {
    const greg_t *gregs = context->uc_mcontext.gregs;
    const struct test_case *c = &cases[current];
    steps++;
    if ((c->flags & REPEATS) && gregs[REG_TRAPNO] == 1 && (uint64_t)gregs[REG_RIP] == start_of(c)) {
      if (steps == STEPS_LIMIT) die("a repeated instruction does not end");
      context->uc_mcontext.gregs[REG_EFL] |= 0x100;
      return;
    }
    record(context);
    current++;
  }
  started = 1;
  if (current == case_count) {
    if (fflush(out) != 0) die("cannot write results");
    _exit(0);
  }
  prepare(context);
}

/* A case may leave AC, NT and ID set; the signal is delivered with them, and the return keeps NT and ID. */
void signal_entry(int, siginfo_t *, void *);
__asm__(".text\n"
        ".globl signal_entry\n"
        "signal_entry:\n"
        "  pushfq\n"
        "  andq $~0x244000, (%rsp)\n"
        "  popfq\n"
        "  jmp on_signal\n");

static void map_fixed(uintptr_t address, int protection, int fd) {
  int flags = MAP_FIXED_NOREPLACE | (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED) | MAP_POPULATE;
  if (mmap((void *)address, PAGE, protection, flags, fd, 0) != (void *)address) die("cannot map memory");
}

static void read_cases(void) {
  size_t size = 0, room = 1 << 20;
  char *input = malloc(room);
  for (;;) {
    if (input == NULL) die("out of memory");
    ssize_t got = read(0, input + size, room - size);
    if (got < 0) die("cannot read cases");
    if (got == 0) break;
    size += (size_t)got;
    if (size == room) input = realloc(input, room *= 2);
  }
  if (size % sizeof(struct test_case) != 0) die("the input ends inside a case");
  cases = (const struct test_case *)input;
  case_count = size / sizeof(struct test_case);
  for (size_t i = 0; i < case_count; i++)
    if (cases[i].length > 16 || cases[i].code_offset >= PAGE) die("a case is malformed");
}

int main(void) {
  read_cases();
  if (case_count == 0) return 0;
  out = stdout;
  setvbuf(out, NULL, _IOFBF, 1 << 20);
  for (int i = 0; i < 2 * PAGE; i++) background[i] = (uint8_t)(i * 7 + (i >> 8) * 29 + 3);

  int fd = memfd_create("code", 0);
  if (fd < 0 || ftruncate(fd, PAGE) != 0) die("cannot create memory");
  map_fixed(CODE, PROT_READ | PROT_EXEC, fd);
  code_alias = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
  if (code_alias == MAP_FAILED) die("cannot map memory");
  map_fixed(DATA, PROT_READ | PROT_WRITE, -1);
  map_fixed(STACK, PROT_READ | PROT_WRITE, -1);
  if (syscall(SYS_arch_prctl, ARCH_SET_GS, GS_BASE) != 0) die("cannot set GS.base");

  struct user_desc small = {.base_addr = DATA, .limit = PAGE - 1, .seg_32bit = 1, .useable = 1};
  if (syscall(SYS_modify_ldt, 0x11, &small, sizeof small) != 0) die("cannot write the LDT");

  static uint8_t signal_stack[1 << 17];
  stack_t alternate = {.ss_sp = signal_stack, .ss_size = sizeof signal_stack};
  if (sigaltstack(&alternate, NULL) != 0) die("cannot set the signal stack");
  struct sigaction action = {.sa_sigaction = signal_entry, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
  const int signals[] = {SIGUSR1, SIGTRAP, SIGFPE, SIGILL, SIGSEGV, SIGBUS};
  for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
    if (sigaction(signals[i], &action, NULL) != 0) die("cannot catch signals");
  raise(SIGUSR1);
  die("unreachable");
}
