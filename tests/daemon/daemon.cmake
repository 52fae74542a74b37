# A real gttd process, real sockets.
add_library(rig STATIC ${CMAKE_CURRENT_LIST_DIR}/rig.c)
target_link_libraries(rig PUBLIC check gtt gttd_wire)
target_include_directories(rig PUBLIC ${CMAKE_CURRENT_LIST_DIR})
target_compile_definitions(rig PUBLIC GTTD_BINARY="$<TARGET_FILE:gttd>")
add_dependencies(rig gttd)

foreach(name ops flight hostile churn limits lifecycle pressure reload share watchdog soak)
    gttd_test(${name}_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/${name}_test.c LIBS rig LABELS daemon)
endforeach()

# And what a service manager keeps for it.
add_library(supervisor STATIC ${CMAKE_CURRENT_LIST_DIR}/supervisor.c)
target_link_libraries(supervisor PUBLIC rig Threads::Threads)
foreach(name restart reconnect)
    gttd_test(${name}_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/${name}_test.c
              LIBS supervisor gttd_core LABELS daemon)
endforeach()

# Devices' own memory, which clients hand over.
add_library(adopting STATIC ${CMAKE_CURRENT_LIST_DIR}/adopting.c)
target_link_libraries(adopting PUBLIC rig)
gttd_test(adopt_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/adopt_test.c LIBS adopting LABELS daemon)
gttd_test(adopt_restart_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/adopt_restart_test.c
          LIBS adopting supervisor LABELS daemon)
