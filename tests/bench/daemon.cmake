# pool_bench [--json]: not a test, timings need a quiet machine.
add_executable(pool_bench ${CMAKE_CURRENT_LIST_DIR}/pool_bench.c)
target_link_libraries(pool_bench PRIVATE rig)
