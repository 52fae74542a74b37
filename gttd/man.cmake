# gttd_man(name ...): build and install NAME.SECTION from NAME.SECTION.scd here, if scdoc is there.
find_program(SCDOC scdoc)
function(gttd_man)
    if(NOT SCDOC)
        return()
    endif()
    foreach(page ${ARGN})
        string(REGEX REPLACE ".*\\." "" section ${page})
        set(out ${CMAKE_CURRENT_BINARY_DIR}/${page})
        add_custom_command(OUTPUT ${out}
            COMMAND sh -c "'${SCDOC}' < '${CMAKE_CURRENT_SOURCE_DIR}/${page}.scd' > '${out}'"
            DEPENDS ${page}.scd VERBATIM)
        add_custom_target(man_${page} ALL DEPENDS ${out})
        install(FILES ${out} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section})
    endforeach()
endfunction()
