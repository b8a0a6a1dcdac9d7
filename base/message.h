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
    X(CLI, 03, "peer of a measurement failed",                                                     \
      "run the command of --peer by itself; it answers each line of JSON with one")                \
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
    X(PLAN, 02, "the exact packer gave no answer",                                                 \
      "set batch.packer: fast, or free memory on that host, and continue with --resume")           \
    X(RUN, 01, "output folder holds another run",                                                  \
      "set another `output`, remove the folder, or continue its run with --resume")                \
    X(RUN, 02, "output folder is in use",                                                          \
      "wait until the other process has ended, or set another `output`")                           \
    X(RUN, 03, "output lies in the model folder", "set `output` to a folder of its own")           \
    X(RUN, 04, "run without what is to be exported",                                               \
      "give the folder that `output` named, and one of the adapters that the message lists")       \
    X(RUN, 05, "resume with other settings or data",                                               \
      "give the value that the run began with, or set another `output`")                           \
    X(RUN, 06, "checkpoint that cannot be used",                                                   \
      "move the folder that the message names away; --resume takes the checkpoint before it")      \
    X(RUN, 07, "checkpoint that could not be written",                                             \
      "free some space, or lower train.keep_checkpoints; the checkpoints before it are as they "   \
      "were")                                                                                      \
    X(RUN, 08, "traces that cannot be put together", "record them: `cadre train --trace N`")       \
    X(RUN, 09, "adapter that is not finite",                                                       \
      "lower its learning_rate, or set clip_norm; when it is the first step, look for NaN in the " \
      "model's weights: `cadre score`")                                                            \
    X(RUN, 10, "result that could not be exported",                                                \
      "cure what the message names; then the same command with --resume exports it")               \
    X(RUN, 11, "config.yaml of somebody else",                                                     \
      "give that file another name, or set another `output`")                                      \
    X(COMM, 01, "a rank has stopped",                                                              \
      "the first error is in the log of the rank that the message names")                          \
    X(COMM, 02, "a rank did not answer in time",                                                   \
      "see the log of the rank that the message names; a slow file system or a debugger can "      \
      "cause it")                                                                                  \
    X(COMM, 03, "ranks disagree",                                                                  \
      "start every rank with the same program, configuration and data")                            \
    X(COMM, 04, "MPI failed",                                                                      \
      "see what mpirun printed above; `cadre train --threads N` runs on one host without MPI")     \
    X(COMM, 05, "memory of another rank of the host cannot be reached",                            \
      "run the ranks of a host as one user and in one container, with all GPUs visible to each")   \
    X(COMM, 06, "transport that cannot serve these ranks", "set train.transport: auto")            \
    X(DEV, 01, "device cannot be used",                                                            \
      "`cadre --version` lists the devices; set train.device: cpu to run without a GPU")           \
    X(DATA, 01, "not a model folder",                                                              \
      "give a Hugging Face folder with config.json and model.safetensors, or its shards and "      \
      "their index")                                                                               \
    X(DATA, 02, "not valid JSON", "correct the file, or take it from where it comes again")        \
    X(DATA, 03, "missing key in a model's file",                                                   \
      "take the file from the model's repository, or add the key")                                 \
    X(DATA, 04, "value of the wrong type or out of range in a model's file",                       \
      "take the file from the model's repository, or correct the value")                           \
    X(DATA, 05, "model or feature not supported",                                                  \
      "use a dense Llama, Mistral, Qwen2 or Qwen3 checkpoint; docs/operations.md says what is "    \
      "read")                                                                                      \
    X(DATA, 06, "damaged safetensors file",                                                        \
      "take the file from where it comes again and compare its size")                              \
    X(DATA, 07, "missing tensor",                                                                  \
      "check that all shards are there and that config.json belongs to them")                      \
    X(DATA, 08, "tensor that the model does not have",                                             \
      "check that config.json and the safetensors files belong together")                          \
    X(DATA, 09, "tensor of another shape or dtype",                                                \
      "check that config.json and the safetensors files belong together")                          \
    X(DATA, 10, "index and shards disagree",                                                       \
      "take the index and all shards from the same revision of the repository")                    \
    X(DATA, 11, "not a dataset of this program",                                                   \
      "make it with `cadre prepare FILE.jsonl --model DIR -o FILE.h5`")                            \
    X(DATA, 12, "damaged dataset",                                                                 \
      "make it again with `cadre prepare`, or copy it again and compare the sizes")                \
    X(DATA, 13, "dataset made for another model",                                                  \
      "run `cadre prepare` with the model folder that is used here")                               \
    X(DATA, 14, "document without a supervised token",                                             \
      "correct or remove the line of the JSONL that the message names, then run `cadre prepare`")  \
    X(DATA, 15, "too few documents", "lower eval_documents, or use more data")                     \
    X(DATA, 16, "folder is not empty", "choose a new folder, or remove this one first")            \
    X(DATA, 17, "value that is not finite",                                                        \
      "if a training made the weights, take an earlier checkpoint and lower the learning rate; "   \
      "if not, take the files from where they come again")                                         \
    X(DATA, 20, "no Python to prepare data with",                                                  \
      "connect to the network once, or set CADRE_PYTHON to a Python that has the packages "        \
      "of data/prepare/requirements.txt")                                                          \
    X(DATA, 21, "not a line of JSON", "write one JSON object a line, in UTF-8")                    \
    X(DATA, 22, "keys missing, or of several shapes",                                              \
      "give each row `text`, or `prompt` and `completion`, or `messages`; --columns "              \
      "text=KEY maps other names")                                                                 \
    X(DATA, 23, "field of the wrong type, or empty", "correct or remove the line")                 \
    X(DATA, 24, "rows of different shapes in one file",                                            \
      "put rows of each shape into a file of their own")                                           \
    X(DATA, 25, "chat template refuses the row",                                                   \
      "correct the row's messages as the reason says, or the folder's chat template")              \
    X(DATA, 26, "trained part of a row cannot be told apart",                                      \
      "split the conversation into rows with one assistant turn each, or use another chat "        \
      "template")                                                                                  \
    X(DATA, 27, "row without a supervised token",                                                  \
      "correct or remove the line, or leave such rows out with --masked skip")                     \
    X(DATA, 28, "row longer than allowed",                                                         \
      "leave such rows out with --overlong skip, cut them with --overlong truncate, or "           \
      "raise --max-tokens")                                                                        \
    X(DATA, 29, "two BOS tokens at the beginning of a row",                                        \
      "remove the BOS from the text or the template, or pass --double-bos keep")                   \
    X(DATA, 30, "tokenizer cannot be used",                                                        \
      "take tokenizer.json and tokenizer_config.json from the model's repository again")           \
    X(DATA, 31, "no chat template, or a faulty one",                                               \
      "put the model's chat_template.jinja into its folder, or give rows of `text` or "            \
      "`prompt` and `completion`")                                                                 \
    X(DATA, 32, "no end token",                                                                    \
      "set eos_token in tokenizer_config.json, or eos_token_id in config.json")                    \
    X(DATA, 33, "token that the model does not have",                                              \
      "use the tokenizer that belongs to the model's weights and config.json")                     \
    X(DATA, 34, "no document to train on", "give at least one row that is not refused")            \
    X(DATA, 35, "data that is not prepared", "run the `cadre prepare` that the message names")     \
    X(DATA, 36, "prepared data that is out of date",                                               \
      "run the `cadre prepare` that the message names again")                                      \
    X(DATA, 40, "not an adapter folder",                                                           \
      "give a folder with adapter_config.json and adapter_model.safetensors, as PEFT "             \
      "and cadre write it")                                                                        \
    X(DATA, 41, "adapter weights are a pickle",                                                    \
      "load the adapter with PEFT once and save it with save_pretrained(DIR, "                     \
      "safe_serialization=True)")                                                                  \
    X(DATA, 42, "adapter feature not supported",                                                   \
      "train the adapter as plain LoRA, or merge it into its base with PEFT (merge_and_unload)")   \
    X(DATA, 43, "tensor missing from an adapter",                                                  \
      "take the adapter from where it was trained again; save it from all ranks' full weights")    \
    X(DATA, 44, "tensor in an adapter that does not belong there",                                 \
      "check that the adapter was trained on this base, and was saved with PEFT's "                \
      "save_pretrained")                                                                           \
    X(DATA, 45, "tensor of an adapter with another shape or dtype",                                \
      "check that the adapter was trained on this base, and that adapter_config.json "             \
      "belongs to it")                                                                             \
    X(DATA, 46, "adapter of another rank or other targets than configured",                        \
      "set rank and targets of the adapter to those of the folder")                                \
    X(DATA, 47, "adapter with values that are not finite",                                         \
      "export an earlier checkpoint, and lower learning_rate or set clip_norm")                    \
    X(DATA, 48, "folder in the way of an export",                                                  \
      "give a folder that does not exist yet, or move this one away")                              \
    X(DATA, 49, "exported adapter differs from the one in memory",                                 \
      "check the file system (quota, space, other writers) and export again")

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
