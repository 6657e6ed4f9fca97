# make                 build everything into build/          make test       build and run all tests
# make demo            derain two sample pictures through the real daemon and client, into build/demo/
# make SAN=address,undefined | SAN=thread (own build folder)  make CUDA=0|1   default: nvcc and cudnn.h found
# make install PREFIX=/usr/local DESTDIR=                     make lint format check-layers bench fuzz T=png clean
PREFIX  ?= /usr/local
DESTDIR ?=
SAN     ?=
CC      ?= cc
CUDA_HOME ?= /usr/local/cuda
NVCC    ?= $(firstword $(wildcard $(CUDA_HOME)/bin/nvcc) $(shell command -v nvcc 2>/dev/null))
CUDNN   := $(firstword $(wildcard $(CUDA_HOME)/include/cudnn.h /usr/include/cudnn.h))
CU      := $(sort $(wildcard cuda/*.cu))
CUDA    ?= $(if $(and $(CU),$(NVCC),$(CUDNN)),1,0)
B       := build$(if $(SAN),-$(SAN))
# on all cores, unless make was told how many
JOBS     = $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(shell nproc))

OPT      ?= -O3 -g
WARN     := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wpointer-arith
MODULES  := $(PREFIX)/lib/derain
SHARE    := $(PREFIX)/share/derain
COMMIT   := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
ALL_CFLAGS  = -std=c11 -D_GNU_SOURCE -I. $(WARN) $(OPT) -fPIC -fvisibility=hidden \
              $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer) \
              -DDR_MODULE_DIR='"$(MODULES)"' -DDR_SHARE_DIR='"$(SHARE)"' $(CPPFLAGS) $(CFLAGS)
ALL_LDFLAGS = $(if $(SAN),-fsanitize=$(SAN)) $(LDFLAGS)
LIBS_core   := -ldnnl -lgomp $(shell pkg-config --libs libpng libjpeg jansson nettle 2>/dev/null) -lm -ldl -lpthread
LIBS_db     := -lsqlite3
LIBS_server := $(shell pkg-config --libs libmicrohttpd jansson libarchive 2>/dev/null)
LIBS_client := $(shell pkg-config --libs libcurl jansson nettle 2>/dev/null)

src  = $(sort $(shell find $(1) -name '*.c'))
objs = $(patsubst %.c,$(B)/%.o,$(call src,$(1)))

TESTS := $(patsubst %.c,$(B)/%,$(call src,$(wildcard tests/core tests/db tests/server tests/client)))
TESTS += $(B)/tests/cuda/plans $(B)/tests/cuda/test_conv_cache $(B)/tests/cuda/test_conv_naive
SCRIPTS := $(sort $(wildcard tests/e2e/*.sh tests/docs/*.sh tests/cuda/*.sh))
LIBS  := $(B)/server.a $(B)/client.a $(B)/db.a $(B)/core.a
PROGS := $(B)/deraind $(B)/derain
CUOBJ := $(CU:%.cu=$(B)/%.o) $(patsubst %.c,$(B)/%.o,$(wildcard cuda/*.c))
ifeq ($(CUDA),1)
PROGS += $(B)/derain-cuda.so
endif

# a change of flags rebuilds too: build/flags is rewritten only when they differ
FLAGS := $(CC) $(ALL_CFLAGS) | $(NVCC)
ifeq ($(filter clean format check-layers,$(MAKECMDGOALS)),)
$(shell mkdir -p $(B))
ifneq ($(file <$(B)/flags),$(FLAGS))
$(file >$(B)/flags,$(FLAGS))
endif
ifneq ($(file <$(B)/commit),$(COMMIT))
$(file >$(B)/commit,$(COMMIT))
endif
endif

all: $(PROGS)

# every room is an archive of all but its main.c: programs and tests link the same objects
$(foreach r,server client db core,$(eval $(B)/$(r).a: $(filter-out %/main.o,$(call objs,$(r)))))
$(LIBS):
	@rm -f $@
	$(AR) rcs $@ $^
$(B)/deraind: $(B)/server/main.o $(B)/server.a $(B)/db.a $(B)/core.a
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS_server) $(LIBS_db) $(LIBS_core)
$(B)/derain: $(B)/client/main.o $(B)/client.a $(B)/core.a
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS_client) -lm -lpthread
# The module links nothing of ours but its own objects, and of CUDA's libraries only cudnn_graph; the runtime is inside.
$(B)/derain-cuda.so: $(CUOBJ)
	$(CC) $(ALL_LDFLAGS) -shared -o $@ $^ -L$(CUDA_HOME)/lib -L$(CUDA_HOME)/lib64 -lcudnn_graph -lcudart_static -lstdc++ \
	    -lpthread -ldl -lrt -lm -Wl,--as-needed -Wl,--exclude-libs,ALL -Wl,-z,defs '-Wl,-rpath,$$ORIGIN:$(CUDA_HOME)/lib:$(CUDA_HOME)/lib64'
$(B)/tests/%: $(B)/tests/%.o $(LIBS)
	$(CC) $(ALL_LDFLAGS) -o $@ $< -Wl,--start-group $(LIBS) -Wl,--end-group $(LIBS_server) $(LIBS_client) $(LIBS_db) $(LIBS_core)

# core/cpu runs its loops on OpenMP threads, as oneDNN does; its kern_<isa>.c files are the same source for two instruction
# sets, chosen at start. No -ffast-math anywhere: NaN checks and equal bits matter.
$(B)/core/cpu/%.o: ALL_CFLAGS += -fopenmp -ffp-contract=fast -Wno-psabi
$(B)/core/cpu/kern_avx2.o $(B)/core/cpu/conv_avx2.o: ALL_CFLAGS += -mavx2 -mfma -mf16c
$(B)/core/cpu/kern_avx512.o $(B)/core/cpu/conv_avx512.o: ALL_CFLAGS += -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mprefer-vector-width=512
$(B)/core/cpu/amx.o $(B)/core/cpu/amx_rows.o $(B)/core/cpu/amx_pack.o $(B)/core/cpu/amx_dw.o: ALL_CFLAGS += -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512bf16 -mfma -mamx-tile -mamx-bf16
# unrolled vector code under the sanitizers: minutes to compile at -O3
ifneq ($(SAN),)
$(B)/core/cpu/conv_base.o $(B)/core/cpu/conv_avx2.o $(B)/core/cpu/conv_avx512.o: ALL_CFLAGS += -O1
$(B)/core/cpu/kern_base.o $(B)/core/cpu/kern_avx2.o $(B)/core/cpu/kern_avx512.o: ALL_CFLAGS += -O1
endif
# SAN=thread: libgomp's barriers are invisible to TSan, so the kernels run without threads there
ifeq ($(SAN),thread)
$(B)/core/cpu/%.o: ALL_CFLAGS += -fno-openmp -Wno-unknown-pragmas
endif

$(B)/server/version.o $(B)/client/version.o: ALL_CFLAGS += -DDR_COMMIT='"$(COMMIT)"'
$(B)/server/version.o $(B)/client/version.o: $(B)/commit

$(B)/%.o: %.c $(B)/flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<
$(B)/cuda/%.o: ALL_CFLAGS += -I$(CUDA_HOME)/include
# one machine code for every architecture that is served, and PTX of the last for those to come
GPU_ARCHS ?= 80 86 89 90 100 120
GENCODE   := $(foreach a,$(GPU_ARCHS),-gencode=arch=compute_$(a),code=sm_$(a)) \
             -gencode=arch=compute_$(lastword $(GPU_ARCHS)),code=compute_$(lastword $(GPU_ARCHS))
NVCCFLAGS ?= -std=c++17 -O3 -t 2 --compress-mode=size
$(B)/%.o: %.cu $(B)/flags
	@mkdir -p $(@D)
	$(NVCC) $(NVCCFLAGS) $(GENCODE) -I. -Xcompiler -fPIC,-fvisibility=hidden,-Wall -MMD -MP -c -o $@ $<

# cuDNN's half of the module, tested without a device; without cudnn.h the test says so and skips
LIBS_cudnn := -L$(CUDA_HOME)/lib -L$(CUDA_HOME)/lib64 -lcudnn_graph -Wl,-rpath,$(CUDA_HOME)/lib:$(CUDA_HOME)/lib64
PLAN_OBJ := $(if $(CUDNN),$(patsubst %,$(B)/cuda/%.o,conv_select conv_cache conv_file cudnn_graph))
$(B)/tests/cuda/plans.o: ALL_CFLAGS += $(if $(CUDNN),-I$(CUDA_HOME)/include)
$(B)/tests/cuda/plans: $(B)/tests/cuda/plans.o $(PLAN_OBJ) $(B)/core.a
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(if $(CUDNN),$(LIBS_cudnn)) $(LIBS_core)
# the file of tuned plans, and the plain loops that stand for cuDNN
$(B)/tests/cuda/test_conv_%.o $(B)/tests/cusim/conv_naive.o: ALL_CFLAGS += -Itests/cusim/include
$(B)/tests/cuda/test_conv_cache: $(B)/tests/cuda/test_conv_cache.o $(B)/cusim/cuda/conv_cache.o $(B)/cusim/cuda/conv_file.o $(B)/core.a
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS_core)
$(B)/tests/cuda/test_conv_naive: $(B)/tests/cuda/test_conv_naive.o $(B)/tests/cusim/conv_naive.o $(B)/core.a
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS_core)

# make gpu-tools: what tests/gpu/gpu_check.sh runs on a device, built where nvcc is. GPU_TOOLS grows where tools are added.
GPU_TOOLS += $(B)/gpu/ceilings $(B)/gpu/picture $(patsubst tests/cuda/%.cpp,$(B)/gpu/%,$(wildcard tests/cuda/test_kern_*.cpp))
# conv_check: cuDNN against plain loops and its times; test_precision: what f16 holds and what not
GPU_TOOLS += $(B)/tests/gpu/conv_check $(B)/tests/cuda/test_precision
gpu-tools: $(GPU_TOOLS)
$(B)/gpu/ceilings: $(B)/tests/gpu/ceilings.o
	@mkdir -p $(@D)
	$(NVCC) -o $@ $<
$(B)/gpu/picture: $(B)/tests/gpu/picture
	@mkdir -p $(@D)
	cp $< $@
$(B)/tests/gpu/conv_%.o: ALL_CFLAGS += -I$(CUDA_HOME)/include
$(B)/tests/gpu/conv_check: $(B)/tests/gpu/conv_check.o $(B)/tests/cusim/conv_naive.o $(B)/cuda/conv_cudnn.o $(B)/cuda/conv_tune.o $(PLAN_OBJ) $(B)/core/base/status.o
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS_cudnn) -lcudart_static -lpthread -ldl -lrt -lm
# the kernel tests, linked with the kernels that nvcc made instead of tests/cusim
$(B)/gpu/obj/%.o: tests/cuda/%.cpp $(B)/flags
	@mkdir -p $(@D)
	$(CXX) -std=c++17 -O2 -g -Wall -I. -I$(CUDA_HOME)/include -MMD -MP -c -o $@ $<
$(B)/gpu/test_kern_%: $(B)/gpu/obj/test_kern_%.o $(CU:%.cu=$(B)/%.o)
	@mkdir -p $(@D)
	$(CXX) -o $@ $^ -L$(CUDA_HOME)/lib -L$(CUDA_HOME)/lib64 -lcudart_static -lpthread -ldl -lrt

# The module's kernels on the CPU (tests/cusim): the same .cu files by g++, plain and under the sanitizers, one program
# for each tests/cuda/test_*.cpp; tests/cuda/kernels.sh runs them. A low DK_PER_GPU takes small tensors through all loops.
SIM_FLAGS := -std=c++17 -g -fPIC -fno-strict-aliasing -Wall -Wextra -Wno-unknown-pragmas -DDR_CUSIM -DDK_PER_GPU=24 -I. \
             -Itests/cusim/include -Itests/cusim
SIM_OPT   := -O2
SIM_SAN   := -O1 -fsanitize=address,undefined -fsanitize-sections=cusim_shared -fno-sanitize-recover=undefined
sim_progs  = $(patsubst tests/cuda/%.cpp,$(B)/$(1)/%,$(wildcard tests/cuda/test_*.cpp))
sim_objs   = $(CU:%.cu=$(B)/$(1)/%.o) $(patsubst %.cpp,$(B)/$(1)/%.o,$(wildcard tests/cusim/*.cpp))
SIM_TESTS := $(call sim_progs,cusim) $(call sim_progs,cusim-san)
define SIM_RULES
$(B)/$(1)/%.o: %.cu $(B)/flags
	@mkdir -p $$(@D)
	$$(CXX) $$(SIM_FLAGS) $(2) -MMD -MP -x c++ -c -o $$@ $$<
$(B)/$(1)/%.o: %.cpp $(B)/flags
	@mkdir -p $$(@D)
	$$(CXX) $$(SIM_FLAGS) $(2) -MMD -MP -c -o $$@ $$<
$(B)/$(1)/test_%: $(B)/$(1)/tests/cuda/test_%.o $(call sim_objs,$(1))
	$$(CXX) $(2) -o $$@ $$^
endef
$(eval $(call SIM_RULES,cusim,$(SIM_OPT)))
$(eval $(call SIM_RULES,cusim-san,$(SIM_SAN)))
# The whole module in emulation: its own C files and kernels over the runtime's stand-in, plain loops for cuDNN. deraind
# loads it as it loads the real one: DERAIN_MODULE_DIR=build/cusim build/deraind run --backend cuda ...
EMU_C := $(filter-out cuda/cudnn_graph.c,$(wildcard cuda/*.c)) $(wildcard tests/cusim/*.c)
$(B)/cusim/%.o: %.c $(B)/flags
	@mkdir -p $(@D)
	$(CC) $(filter-out -I$(CUDA_HOME)/include,$(ALL_CFLAGS)) -DDR_CUSIM -Itests/cusim/include -MMD -MP -c -o $@ $<
$(B)/cusim/derain-cuda.so: $(EMU_C:%.c=$(B)/cusim/%.o) $(call sim_objs,cusim)
	$(CXX) $(ALL_LDFLAGS) -shared -Wl,-z,defs -o $@ $^ -lm -lpthread
# a step on the module against the CPU backend that rounds as the module does
$(B)/tests/cuda/test_parity_step: $(B)/tests/cuda/test_parity_step.o $(B)/tests/cuda/rounded.o $(LIBS)
	$(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(LIBS) -Wl,--end-group $(LIBS_server) $(LIBS_client) $(LIBS_db) $(LIBS_core)
PARITY := $(patsubst tests/cuda/%.c,$(B)/tests/cuda/%,$(filter-out tests/cuda/test_conv_%,$(wildcard tests/cuda/test_*.c)))
TESTS  += $(PARITY)
test-run: $(B)/cusim/derain-cuda.so

# db/schema/NNNN_*.sql in order, as C strings: the migrations travel inside the program
SCHEMA := $(sort $(wildcard db/schema/*.sql))
$(B)/db.a: $(B)/db/schema.o
$(B)/db/schema.c: $(SCHEMA) $(B)/flags
	@mkdir -p $(@D)
	@{ echo '#include "db/internal.h"'; echo 'const char *const db_migrations[] = {'; \
	   for f in $(SCHEMA); do sed 's/[\\"]/\\&/g; s/^/"/; s/$$/\\n"/' $$f; echo ','; done; \
	   echo '};'; echo 'const int db_n_migrations = $(words $(SCHEMA));'; } >$@
$(B)/db/schema.o: $(B)/db/schema.c db/internal.h
	$(CC) $(ALL_CFLAGS) -c -o $@ $<

# test and demo are also the first commands on a new machine: they look for the libraries, install what is missing
# and then start make again, which now finds them.
test: deps
	@$(MAKE) --no-print-directory $(JOBS) test-run
demo: deps
	@$(MAKE) --no-print-directory $(JOBS) demo-run
deps:
	@tests/deps.sh
test-run: all $(TESTS) $(SIM_TESTS) $(B)/gpu/picture check-layers
	DERAIN_MODULE_DIR=$(CURDIR)/$(B) NVCC=$(NVCC) CXX=$(CXX) B=$(B) SAN=$(SAN) tests/run.sh $(TESTS) $(SCRIPTS)
demo-run: all $(B)/tests/demo/beside
	B=$(B) tests/demo/demo.sh
bench: all
	B=$(B) tests/bench/bench.sh
# tests/fuzz/fuzz_T.c under libFuzzer for SECONDS; what it learns stays in the corpus folder. A target outside core/base and
# core/image names its further sources in FUZZ_SRC_T.
T       ?= png
SECONDS ?= 60
FUZZ_CC ?= clang
FUZZ_SRC_safetensors := core/model/safetensors.c core/model/half.c
FUZZ_SRC_pth := core/model/pth.c core/model/pickle.c core/model/zip.c
FUZZ_SRC_config    := server/config.c
FUZZ_SRC_multipart := server/multipart.c
FUZZ_SRC_conv_cache := cuda/conv_cache.c cuda/conv_file.c
FUZZ_SRC_archive   := server/archive.c
FUZZ_SRC_compare   := server/compare_params.c server/problem.c server/archive.c $(call src,db) build/db/schema.c
FUZZ_SRC_headers   := server/headers.c server/guard.c
fuzz:
	@mkdir -p build/fuzz/$(T)
	$(CC) -std=c11 -D_GNU_SOURCE -I. -o build/fuzz/seeds tests/fuzz/seeds.c core/base/hash.c $(filter-out -ldnnl -lgomp,$(LIBS_core))
	build/fuzz/seeds build/fuzz/$(T)
	$(FUZZ_CC) -std=c11 -D_GNU_SOURCE -I. $(if $(filter conv_cache,$(T)),-Itests/cusim/include) -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
	    -o build/fuzz/fuzz_$(T) tests/fuzz/fuzz_$(T).c $(call src,core/base core/image) $(FUZZ_SRC_$(T)) $(filter-out -ldnnl -lgomp,$(LIBS_core)) \
	    $(if $(filter archive compare,$(T)),-larchive) $(if $(filter compare,$(T)),-lsqlite3)
	cd build/fuzz && ./fuzz_$(T) -max_total_time=$(SECONDS) -rss_limit_mb=1024 -print_final_stats=1 $(T)
check-layers:
	@tests/layers.sh
format:
	clang-format -i $(shell git ls-files '*.[ch]' '*.cu' '*.cuh')
# Each file is analysed with the flags that it is compiled with; build/compile_commands.json is also what editors look for.
LINTED := core cuda db server client $(wildcard tests/core tests/db tests/server tests/client tests/demo tests/e2e tests/fuzz tests/bench)
lint: check-layers
	@{ echo '['; $(MAKE) --no-print-directory -Bn all $(TESTS) | sed -n 's/[\\"]/\\&/g; s|^$(CC) .* -c -o [^ ]* \([^ ]*\.c\)$$|{"directory": "$(CURDIR)", "command": "&", "file": "\1"},|p' | \
	   sed '$$s/,$$//'; echo ']'; } >$(B)/compile_commands.json
	cppcheck --quiet --std=c11 --enable=warning,portability,performance --inline-suppr --error-exitcode=1 -I. $(LINTED)
	sed -n 's/.*"file": "\([^"]*\)".*/\1/p' $(B)/compile_commands.json | grep -v '^$(B)/' | xargs -P$(shell nproc) -n 4 clang-tidy --quiet -p $(B) 2>$(B)/lint.log

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(MODULES) $(DESTDIR)$(SHARE)/models
	install -m 755 $(B)/deraind $(B)/derain $(DESTDIR)$(PREFIX)/bin
	$(if $(filter 1,$(CUDA)),install -m 755 $(B)/derain-cuda.so $(DESTDIR)$(MODULES))
	for f in models/*; do [ ! -f "$$f" ] || install -m 644 "$$f" $(DESTDIR)$(SHARE)/models; done
	for s in 1 5 8; do install -d $(DESTDIR)$(PREFIX)/share/man/man$$s; \
	    for f in docs/man/*.$$s; do [ ! -f "$$f" ] || install -m 644 "$$f" $(DESTDIR)$(PREFIX)/share/man/man$$s; done; done
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	install -m 644 docs/completion/derain.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/derain
uninstall:
	rm -f $(DESTDIR)$(PREFIX)/share/bash-completion/completions/derain
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/bin/,deraind derain) $(DESTDIR)$(MODULES)/derain-cuda.so
	rm -rf $(DESTDIR)$(SHARE)
	rm -f $(foreach f,$(wildcard docs/man/*.[158]),$(DESTDIR)$(PREFIX)/share/man/man$(subst .,,$(suffix $(f)))/$(notdir $(f)))
clean:
	rm -rf build build-*

.PHONY: all gpu-tools test demo deps test-run demo-run bench fuzz check-layers format lint install uninstall clean
.SECONDARY:
-include $(shell find $(B) -name '*.d' 2>/dev/null)
