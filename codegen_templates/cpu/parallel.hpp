// Programs of a kernel on all threads, each thread with its own memory.

/// Numbers near zero count as zero while this lives: arithmetic on them is a hundred times slower.
struct FlushToZero {
#if defined(__SSE2__)
  unsigned saved = __builtin_ia32_stmxcsr();
  FlushToZero() { __builtin_ia32_ldmxcsr(saved | 0x8040); }
  ~FlushToZero() { __builtin_ia32_ldmxcsr(saved); }
#endif
};

/// What was written past the caches is in memory when this returns.
static inline void drain() {
#if defined(__SSE2__)
  __builtin_ia32_sfence();
#endif
}

/// How many of the sequences of a program, the longest first, have more than so many steps.
static inline int going(const int64_t* length, int rows, int64_t steps) {
  while (rows > 0 && length[rows - 1] <= steps) rows--;
  return rows;
}

/// body(room, program) for each program; 1 if there is no memory for the rooms, else 0.
template <class Room, class F> static int in_parallel(int64_t programs, int64_t threads, F&& body) {
  int failed = 0;
  const int64_t team = programs < threads ? programs : threads;
#pragma omp parallel num_threads(team) if (team > 1)
  {
    const size_t size = (sizeof(Room) + 63) / 64 * 64;
    Room* room = static_cast<Room*>(aligned_alloc(64, size));
    if (room == nullptr) {
#pragma omp atomic write
      failed = 1;
    } else {
      memset(static_cast<void*>(room), 0, size);
    }
    FlushToZero mode;
#pragma omp for schedule(dynamic)
    for (int64_t program = 0; program < programs; program++)
      if (room != nullptr) body(*room, program);
    drain();
    free(room);
  }
  return failed;
}
