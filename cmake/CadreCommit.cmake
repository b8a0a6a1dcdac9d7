# Run at build time (base/CMakeLists.txt): fills base/version.h.in with the values of this build and of the commit.
# Outside a git checkout, without git, or where git refuses a folder of another owner, the commit is "unknown".
find_program(GIT git)
set(CADRE_COMMIT "")
if(GIT)
    execute_process(
        COMMAND "${GIT}" -C "${SOURCE_DIR}" rev-parse --show-toplevel
        OUTPUT_VARIABLE top
        ERROR_QUIET
        OUTPUT_STRIP_TRAILING_WHITESPACE
    )
    # An unpacked archive may lie inside some other repository, whose commit says nothing about us.
    get_filename_component(source "${SOURCE_DIR}" REALPATH)
    if(top STREQUAL source)
        execute_process(
            COMMAND "${GIT}" -C "${SOURCE_DIR}" describe --always --dirty --abbrev=12 "--exclude=*"
            OUTPUT_VARIABLE CADRE_COMMIT
            ERROR_QUIET
            OUTPUT_STRIP_TRAILING_WHITESPACE
        )
    endif()
endif()
if(CADRE_COMMIT STREQUAL "")
    set(CADRE_COMMIT "unknown")
endif()
configure_file("${INPUT}" "${OUTPUT}" @ONLY)
