# cadre_library(<folder> [SOURCES <file>...] [DEPS <folder>...] [LINK <target>...] [OBJECTS <object library>...])
#
# One static library cadre_<folder> per folder. DEPS are other folders and are visible to whoever links this one; LINK
# are foreign targets. A folder without sources yet is an INTERFACE library, so that the order of the folders already
# holds. The order is checked here, by tests/checks/includes.py (what a file includes) and by check.link.<folder> (what
# a folder's objects call).

set(cadre_layer_base "")
set(cadre_layer_kernels base)
set(cadre_layer_comm base)
set(cadre_layer_data base)
set(cadre_layer_lora base kernels comm data)
set(cadre_layer_attention_server base kernels comm data)
set(cadre_layer_trainer base kernels comm data lora attention_server)

function(cadre_library folder)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;DEPS;LINK;OBJECTS")
    if(arg_UNPARSED_ARGUMENTS)
        message(FATAL_ERROR "cadre_library(${folder}): unknown argument ${arg_UNPARSED_ARGUMENTS}")
    endif()
    set(deps "")
    foreach(dep IN LISTS arg_DEPS)
        if(NOT dep IN_LIST cadre_layer_${folder})
            message(FATAL_ERROR "${folder}/ may not depend on ${dep}/: it may use ${cadre_layer_${folder}}")
        endif()
        list(APPEND deps cadre_${dep})
    endforeach()

    if(NOT arg_SOURCES AND NOT arg_OBJECTS)
        add_library(cadre_${folder} INTERFACE)
        target_link_libraries(cadre_${folder} INTERFACE ${deps} ${arg_LINK})
        return()
    endif()
    add_library(cadre_${folder} STATIC ${arg_SOURCES})
    foreach(object IN LISTS arg_OBJECTS)
        target_sources(cadre_${folder} PRIVATE $<TARGET_OBJECTS:${object}>)
    endforeach()
    # PUBLIC, because the sanitizers and the include path must reach the programs that link the folder.
    target_link_libraries(cadre_${folder} PUBLIC cadre_flags ${deps} ${arg_LINK})
    set_property(GLOBAL APPEND PROPERTY CADRE_LIBRARIES cadre_${folder})
endfunction()
