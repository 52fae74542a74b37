# Everything that comes from a file or from another process's memory.
foreach(name safetensors config image)
    gttd_fuzz(fuzz_${name} SOURCES ${CMAKE_CURRENT_LIST_DIR}/fuzz_${name}.c LIBS model m)
endforeach()
