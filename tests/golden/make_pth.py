# Makes tests/golden/pth.inc with PyTorch: python3 tests/golden/make_pth.py
import torch, collections, os, io
torch.manual_seed(1)
d=collections.OrderedDict([('a.weight',torch.arange(6.).reshape(2,3)/4),('a.bias',torch.tensor([1.5,-2.],dtype=torch.float16)),('n',torch.tensor(7)),('e',torch.zeros(0,3))])
base=torch.arange(8.); d['view']=base[2:6]
class Evil:
    def __reduce__(self): return (os.system,('false',))
out=open('tests/golden/pth.inc','w')
out.write('/* State dicts written by PyTorch %s (tests/golden/make_pth.py): a 2x3 float, a half, an integer, an empty tensor and\n * a view into a larger storage; in both forms of file; and one that calls os.system. */\n' % torch.__version__.split('+')[0])
def put(name, obj, new=True):
    f=io.BytesIO(); torch.save(obj,f,_use_new_zipfile_serialization=new); b=f.getvalue()
    out.write('static const unsigned char %s[%d] = {\n' % (name,len(b)))
    for i in range(0,len(b),24): out.write('    '+' '.join('%d,'%x for x in b[i:i+24])+'\n')
    out.write('};\n')
put('pth_zip',d); put('pth_old',d,False); e=collections.OrderedDict(d); e['x']=Evil(); put('pth_evil',e); put('pth_evil_old',e,False)
put('pth_wrapped',{'epoch':3,'lr':0.5,'state_dict':d})
