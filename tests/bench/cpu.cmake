# Run by hand: see its opening comment.
add_executable(cpu_bench ${CMAKE_CURRENT_LIST_DIR}/cpu_bench.c)
target_link_libraries(cpu_bench PRIVATE cpu_backends random_model check)
