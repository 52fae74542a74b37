# What is installed, and the Debian package: only of a build that could be shipped.
find_program(DPKG_SHLIBDEPS dpkg-shlibdeps)
if(DPKG_SHLIBDEPS AND NOT CMAKE_C_FLAGS MATCHES sanitize)
    add_test(NAME package_test
             COMMAND ${CMAKE_CURRENT_LIST_DIR}/package_test.sh ${CMAKE_BINARY_DIR} ${CMAKE_CPACK_COMMAND}
             WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(package_test PROPERTIES TIMEOUT 120)
endif()
