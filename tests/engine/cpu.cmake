add_library(conformance STATIC ${CMAKE_CURRENT_LIST_DIR}/conformance.c)
target_include_directories(conformance PUBLIC ${CMAKE_CURRENT_LIST_DIR})
target_link_libraries(conformance PUBLIC cpu_backends random_model check m)

gttd_test(conformance_reference SOURCES engine/conformance_reference.c LIBS conformance
          LABELS engine)

set(cpu_quick "")
if(CMAKE_C_FLAGS MATCHES "-fsanitize")
    set(cpu_quick --quick)
endif()
gttd_test(conformance_cpu SOURCES engine/conformance_cpu.c LIBS conformance
          ARGS ${cpu_quick} LABELS engine TIMEOUT 600)
