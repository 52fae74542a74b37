gttd_test(cpu_pool_test SOURCES unit/cpu_pool_test.c LIBS cpu_backends LABELS unit)
