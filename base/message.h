/* Messages a user can meet, each with an id and a cure.
 *
 * Whatever a user can cause has one entry X(AREA, number, text, cure) here. The entry feeds the
 * message on the terminal, its paragraph in docs/operations.md and the test that provokes it:
 * tests/checks fails when an id has no test or no paragraph. `text` names the class of the fault
 * and is the heading of the paragraph; the exact cause, with place first and the numbers found and
 * wanted, is written where the fault is detected (BASE_FAIL). `cure` is printed indented on the
 * next line: a command or a configuration key.
 *
 * INT-01 is for faults of ours: a broken contract between two parts of the program. */
#ifndef CADRE_BASE_MESSAGE_H
#define CADRE_BASE_MESSAGE_H

#ifdef __cplusplus
extern "C" {
#endif

#define BASE_MESSAGE_MAP(X)                                                                        \
    X(INT, 01, "internal error",                                                                   \
      "this is a fault of cadre; please report it with the output of `cadre --version`")           \
    X(CLI, 01, "unknown verb", "`cadre --help` lists the verbs")                                   \
    X(CLI, 02, "unknown or incomplete option", "`cadre VERB --help` lists the options")            \
    X(CONF, 01, "configuration file cannot be read", "check the path and its permissions")         \
    X(CONF, 02, "not valid YAML",                                                                  \
      "correct the line; strings that begin with a special character need quotes")                 \
    X(CONF, 03, "unknown key", "use the suggested key, or remove the line")                        \
    X(CONF, 04, "value of the wrong type or out of range",                                         \
      "docs/config.md lists every key with its type and range")                                    \
    X(CONF, 05, "missing key", "add the key; docs/config.md shows an example")                     \
    X(CONF, 06, "keys that exclude each other", "keep one of the two")                             \
    X(CONF, 07, "duplicate key or name", "keep one")                                               \
    X(CONF, 08, "key of another tool", "use the key that the message names")                       \
    X(IO, 01, "file cannot be read", "check the path and its permissions")                         \
    X(IO, 02, "file cannot be written", "check permissions, free space and quota of the folder")   \
    X(IO, 03, "file larger than allowed", "check that it is the file you meant")                   \
    X(MEM, 01, "out of memory", "`cadre plan` says what fits; lower batch.tokens_per_trainer")     \
    X(PLAN, 01, "document longer than a microbatch",                                               \
      "use at least the number of trainers that the message names, or raise "                      \
      "batch.tokens_per_trainer")                                                                  \
    X(COMM, 01, "a rank has stopped",                                                              \
      "the first error is in the log of the rank that the message names")                          \
    X(COMM, 02, "a rank did not answer in time",                                                   \
      "see the log of the rank that the message names; a slow file system or a debugger can "      \
      "cause it")                                                                                  \
    X(COMM, 03, "ranks disagree",                                                                  \
      "start every rank with the same program, configuration and data")                            \
    X(DEV, 01, "device cannot be used",                                                            \
      "`cadre --version` lists the devices; set train.device: cpu to run without a GPU")           \
    X(DATA, 01, "not a model folder",                                                              \
      "give a Hugging Face folder with config.json and model.safetensors, or its shards and "      \
      "their index")                                                                               \
    X(DATA, 02, "not valid JSON", "take the file from the model's repository again")               \
    X(DATA, 03, "missing key in a model's file",                                                   \
      "take the file from the model's repository, or add the key")                                 \
    X(DATA, 04, "value of the wrong type or out of range in a model's file",                       \
      "take the file from the model's repository, or correct the value")                           \
    X(DATA, 05, "model or feature not supported",                                                  \
      "use a dense Llama, Mistral, Qwen2 or Qwen3 checkpoint; docs/operations.md says what is "    \
      "read")                                                                                      \
    X(DATA, 06, "damaged safetensors file",                                                        \
      "take the file from the model's repository again and compare its size")                      \
    X(DATA, 07, "missing tensor",                                                                  \
      "check that all shards are there and that config.json belongs to them")                      \
    X(DATA, 08, "tensor that the model does not have",                                             \
      "check that config.json and the safetensors files belong together")                          \
    X(DATA, 09, "tensor of another shape or dtype",                                                \
      "check that config.json and the safetensors files belong together")                          \
    X(DATA, 10, "index and shards disagree",                                                       \
      "take the index and all shards from the same revision of the repository")

typedef enum base_message {
#define X(area, number, text, cure) BASE_MSG_##area##_##number,
    BASE_MESSAGE_MAP(X)
#undef X
        BASE_MSG_COUNT
} base_message_t;

/* "CONF-03", its heading, its cure. Static strings; NULL for a value that is not in the list. */
const char *base_message_id(base_message_t msg);
const char *base_message_text(base_message_t msg);
const char *base_message_cure(base_message_t msg);

#ifdef __cplusplus
}
#endif
#endif
