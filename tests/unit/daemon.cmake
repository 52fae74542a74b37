set(here ${CMAKE_CURRENT_LIST_DIR})
gttd_test(wire_test SOURCES ${here}/wire_test.c LIBS gttd_wire LABELS unit)
gttd_test(ballast_test SOURCES ${here}/ballast_test.c LIBS gttd_core LABELS unit)
gttd_test(device_test SOURCES ${here}/device_test.c LIBS gttd_core LABELS unit)
gttd_test(heap_test SOURCES ${here}/heap_test.c LIBS gttd_core LABELS unit)
gttd_test(quota_test SOURCES ${here}/quota_test.c LIBS gttd_core LABELS unit)
gttd_test(gttd_conf_test SOURCES ${here}/gttd_conf_test.c LIBS gttd_core LABELS unit)
gttd_test(digest_test SOURCES ${here}/digest_test.c LIBS gtt gttd_wire nettle
          LABELS unit)

# The public header alone, as C++.
find_program(CXX_PROGRAM c++)
if(CXX_PROGRAM)
    add_test(NAME gtt_h_cxx
             COMMAND ${CXX_PROGRAM} -std=c++11 -pedantic -Wall -Wextra -Werror -fsyntax-only -x c++
                     ${PROJECT_SOURCE_DIR}/runtime/include/gtt.h)
    set_tests_properties(gtt_h_cxx PROPERTIES LABELS unit)
endif()
